//! A lab for a person at a terminal: Ctrl-C at any moment removes everything, and waits until it is gone.

use std::io::Read as _;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::lab::{Lab, LabBuilder, poll_until};
use crate::sys;

/// As shells say it: 128 and SIGINT.
const INTERRUPTED: u8 = 130;

/// Holds the lab of the work that runs.
#[derive(Debug, Default)]
pub(crate) struct Session {
    lab: Mutex<Option<Arc<Lab>>>,
}

impl Session {
    /// Makes the session's lab.
    pub(crate) fn up(&self, plan: LabBuilder) -> Result<Arc<Lab>> {
        let lab = Arc::new(plan.up()?);
        *self.lab.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&lab));
        Ok(lab)
    }

    fn lab(&self) -> Option<Arc<Lab>> {
        self.lab.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

enum Event {
    Finished(Result<()>),
    Interrupted,
}

/// Does `work` on a thread of its own, until it ends or a signal says to stop; nothing of its lab is left after this.
pub(crate) fn run(work: impl FnOnce(&Session) -> Result<()> + Send + 'static) -> ExitCode {
    let session = Arc::new(Session::default());
    let outcome = start(&session, work).and_then(|events| {
        let event = events.recv().context("the work ended without a result")?;
        match event {
            // Ctrl-C also ends the programs that the work waits for, which may be seen first.
            Event::Finished(Err(_)) if sys::end_was_asked() => interrupted(&session, &events),
            Event::Finished(result) => finished(&session, result),
            Event::Interrupted => interrupted(&session, &events),
        }
    });
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn start(
    session: &Arc<Session>,
    work: impl FnOnce(&Session) -> Result<()> + Send + 'static,
) -> Result<Receiver<Event>> {
    if let Some(reason) = crate::lab::cannot_run() {
        bail!("{reason}");
    }
    let mut signals = sys::catch_end_signals().context("cannot catch signals")?;
    let (tell, events) = channel();
    let tell_signal = tell.clone();
    thread::spawn(move || {
        if signals.read_exact(&mut [0]).is_ok() {
            let _ = tell_signal.send(Event::Interrupted);
        }
    });
    let session = Arc::clone(session);
    thread::spawn(move || {
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&session)));
        let result = done.unwrap_or_else(|_| Err(anyhow::anyhow!("panicked (see above)")));
        let _ = tell.send(Event::Finished(result));
    });
    Ok(events)
}

fn finished(session: &Session, result: Result<()>) -> Result<ExitCode> {
    let lab = session.lab();
    if let (Err(_), Some(lab)) = (&result, &lab) {
        eprintln!("\n{}", lab.log_tails());
    }
    let removed = lab.map_or(Ok(()), |lab| lab.remove_now());
    result.and(removed).map(|()| ExitCode::SUCCESS)
}

fn interrupted(session: &Session, events: &Receiver<Event>) -> Result<ExitCode> {
    eprintln!("\ninterrupted: removing everything");
    // Either the lab stands, or soon will, or its maker has failed and cleaned up.
    let lab = poll_until("the lab to be removable", Duration::from_secs(30), || {
        let over = || matches!(events.try_recv(), Ok(Event::Finished(_))).then_some(None);
        session.lab().map(Some).or_else(over)
    })?;
    if let Some(lab) = lab {
        lab.remove_now()?;
    }
    Ok(ExitCode::from(INTERRUPTED))
}
