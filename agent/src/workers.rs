//! Worker threads: one single-threaded runtime each. A connection lives on one of them from accept to end, so
//! nothing on its way wakes another thread.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::mpsc;
use tokio::task::LocalSet;

type Job<C> = Box<dyn FnOnce(Rc<C>) + Send>;

/// The agent's workers, each with a context `C` of its own. They end, with everything on them, when the last clone
/// is dropped.
pub struct Workers<C> {
    workers: Arc<[Worker<C>]>,
}

struct Worker<C> {
    jobs: mpsc::UnboundedSender<Job<C>>,
    connections: Arc<AtomicUsize>,
}

/// Counts a connection on its worker until it is dropped.
#[derive(Debug)]
pub struct Seat(Arc<AtomicUsize>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<C> Clone for Workers<C> {
    fn clone(&self) -> Self {
        Self { workers: Arc::clone(&self.workers) }
    }
}

impl<C: 'static> Workers<C> {
    /// Starts `count` workers; `make` builds each worker's context on its own thread.
    ///
    /// # Errors
    /// When the system refuses a thread or a runtime.
    pub fn start(count: usize, make: impl Fn() -> C + Send + Clone + 'static) -> io::Result<Self> {
        let workers = (0..count.max(1)).map(|index| Worker::start(index, make.clone()));
        Ok(Self { workers: workers.collect::<io::Result<_>>()? })
    }

    /// Runs `job` on the worker with the fewest connections; the seat counts as one until it is dropped.
    pub fn run_connection(&self, job: impl FnOnce(Rc<C>, Seat) + Send + 'static) {
        let Some(worker) = self.workers.iter().min_by_key(|w| w.connections.load(Ordering::Relaxed)) else {
            return;
        };
        worker.connections.fetch_add(1, Ordering::Relaxed);
        let seat = Seat(Arc::clone(&worker.connections));
        worker.run(move |context| job(context, seat));
    }

    /// Connections that hold a seat.
    pub fn connections(&self) -> usize {
        self.workers.iter().map(|worker| worker.connections.load(Ordering::Relaxed)).sum()
    }

    /// Runs `job` on the worker that `key` always falls to.
    pub fn run_keyed(&self, key: u64, job: impl FnOnce(Rc<C>) + Send + 'static) {
        let index = (key % self.workers.len().max(1) as u64) as usize;
        if let Some(worker) = self.workers.get(index) {
            worker.run(job);
        }
    }
}

impl<C: 'static> Worker<C> {
    fn start(index: usize, make: impl FnOnce() -> C + Send + 'static) -> io::Result<Self> {
        let (jobs, mut queue) = mpsc::unbounded_channel::<Job<C>>();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            let local = LocalSet::new();
            local.block_on(&runtime, async {
                let context = Rc::new(make());
                while let Some(job) = queue.recv().await {
                    job(Rc::clone(&context));
                }
            });
        })?;
        Ok(Self { jobs, connections: Arc::default() })
    }

    fn run(&self, job: impl FnOnce(Rc<C>) + Send + 'static) {
        // A worker ends only with the last handle to it.
        let _ = self.jobs.send(Box::new(job));
    }
}
