//! The plugin's place on the node: its file in the directory of CNI plugins, and its entry in the configuration that
//! the container runtime reads.
//!
//! The runtime uses the first configuration by name, so that is the one that gets our entry. The file comes first and
//! goes last: a chain that names a plugin which is not there starts no pod at all. An orderly end of the agent removes
//! nothing: its successor comes, and until then pods of the mesh must wait. `remove` is for uninstalling.

use notify::{RecursiveMode, Watcher};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::watch;
use warren_cni::conflist::{self, ConflistError};
use warren_cni::{Entry, PLUGIN};
use warren_common::runtime::DrainWatch;

/// A provider's single configuration that we have made a list of lies beside it under this name.
const SET_ASIDE: &str = "warren-saved";
/// How often is looked even if nobody said that anything has changed.
const POLL: Duration = Duration::from_secs(10);

/// Where the plugin goes.
#[derive(Clone, Debug)]
pub struct InstallConfig {
    /// Directory of the container runtime's CNI plugins.
    pub bin_dir: PathBuf,
    /// Directory of the container runtime's CNI configurations.
    pub conf_dir: PathBuf,
    /// The plugin to copy: it runs on the node, so it must need nothing that the node may lack.
    pub plugin: PathBuf,
    /// Our entry.
    pub entry: Entry,
}

/// Why the plugin is not (or not quite) in place.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A file or directory.
    #[error("{what} {path}: {source}")]
    File {
        /// What was being done.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The network's provider has not written one yet.
    #[error(
        "no CNI configuration (*.conflist, *.conf, *.json) in {0} yet; is the cluster's network installed?"
    )]
    NoConfiguration(PathBuf),
    /// It was left alone.
    #[error("the CNI configuration {path} was left alone, {source}")]
    Configuration {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: ConflistError,
    },
}

/// Installs the plugin, and repairs what is changed by others until the drain begins.
pub async fn follow(config: InstallConfig, mut drain: DrainWatch) {
    let (touched, mut touches) = watch::channel(());
    let notice = move |event: notify::Result<notify::Event>| {
        if is_news(&event) {
            touched.send_replace(());
        }
    };
    let mut watcher = notify::recommended_watcher(notice)
        .inspect_err(
            |error| tracing::warn!(%error, "changes of the CNI configuration are looked for every 10 s"),
        )
        .ok();
    for folder in [&config.conf_dir, &config.bin_dir] {
        // What is not there yet is found by looking.
        let _ = watcher.as_mut().map(|watcher| watcher.watch(folder, RecursiveMode::NonRecursive));
    }
    let mut told = None;
    loop {
        touches.mark_unchanged();
        let report = match install(&config) {
            Ok(None) => None,
            Ok(Some(path)) => {
                tracing::info!(path = %path.display(), "the CNI plugin stands in the node's configuration");
                None
            }
            Err(error) => Some(error.to_string()),
        };
        if report != told
            && let Some(error) = &report
        {
            tracing::warn!(
                error,
                "new pods are enrolled only after they have started: the CNI plugin is not in place"
            );
        }
        told = report;
        tokio::select! {
            _ = touches.changed() => {}
            () = tokio::time::sleep(POLL) => {}
            () = drain.started() => return,
        }
    }
}

/// Our own looking opens files, and that is an event too: to look again because of it would never end.
fn is_news(event: &notify::Result<notify::Event>) -> bool {
    use notify::event::{AccessKind, AccessMode, EventKind};
    event.as_ref().map_or(true, |event| match event.kind {
        EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
        _ => true,
    })
}

/// Puts the plugin in place. Returns the configuration that was changed, if one was.
///
/// # Errors
/// [`InstallError`]; whatever was in place before still is.
pub fn install(config: &InstallConfig) -> Result<Option<PathBuf>, InstallError> {
    copy_plugin(&config.plugin, &config.bin_dir.join(PLUGIN))?;
    let path =
        primary(&config.conf_dir)?.ok_or_else(|| InstallError::NoConfiguration(config.conf_dir.clone()))?;
    let text = fs::read_to_string(&path).map_err(failed("reading", &path))?;
    let refused = |source| InstallError::Configuration { path: path.clone(), source };
    if is_list(&path) {
        let Some(changed) = conflist::add(&text, &config.entry).map_err(refused)? else { return Ok(None) };
        replace(&path, changed.as_bytes(), &path)?;
        return Ok(Some(path));
    }
    let list = path.with_extension("conflist");
    let changed = conflist::convert(&text, &config.entry).map_err(refused)?;
    // The list first: until the single one is gone it comes before the list by name, or is the only one.
    replace(&list, changed.as_bytes(), &path)?;
    let aside = set_aside(&path);
    fs::rename(&path, &aside).map_err(failed("setting aside", &path))?;
    Ok(Some(list))
}

/// Takes the plugin out again, from every configuration, and then its file.
///
/// # Errors
/// [`InstallError`]: the first that went wrong. The plugin's file stays while a configuration may still name it.
pub fn remove(config: &InstallConfig) -> Result<(), InstallError> {
    for saved in
        files(&config.conf_dir, |path| path.extension().is_some_and(|extension| extension == SET_ASIDE))?
    {
        let original = saved.with_extension("");
        // By name it comes before the list, so it counts from here on.
        fs::rename(&saved, &original).map_err(failed("restoring", &original))?;
        let list = original.with_extension("conflist");
        fs::remove_file(&list).map_err(failed("removing", &list))?;
    }
    for path in files(&config.conf_dir, is_list)? {
        let text = fs::read_to_string(&path).map_err(failed("reading", &path))?;
        match conflist::remove(&text) {
            Ok(None) => {}
            Ok(Some(changed)) => replace(&path, changed.as_bytes(), &path)?,
            // Without our name it cannot need our file.
            Err(_) if !text.contains(PLUGIN) => {}
            Err(source) => return Err(InstallError::Configuration { path, source }),
        }
    }
    let plugin = config.bin_dir.join(PLUGIN);
    match fs::remove_file(&plugin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("removing", &plugin)(error)),
        _ => Ok(()),
    }
}

fn copy_plugin(from: &Path, to: &Path) -> Result<(), InstallError> {
    let new = fs::read(from).map_err(failed("reading the plugin", from))?;
    let is_executable =
        |path: &Path| fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o111 != 0);
    if is_executable(to) && fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    write_beside(to, &new, Permissions::from_mode(0o755))
}

/// The configuration that the runtime uses: the first by name.
fn primary(folder: &Path) -> Result<Option<PathBuf>, InstallError> {
    let is_configuration = |path: &Path| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        matches!(extension, Some("conflist" | "conf" | "json"))
    };
    Ok(files(folder, is_configuration)?.into_iter().next())
}

fn is_list(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "conflist")
}

fn set_aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(SET_ASIDE);
    PathBuf::from(name)
}

/// Files of a folder in the order of their names.
fn files(folder: &Path, wanted: impl Fn(&Path) -> bool) -> Result<Vec<PathBuf>, InstallError> {
    let entries = fs::read_dir(folder).map_err(failed("reading the directory", folder))?;
    let mut found: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| wanted(path) && path.is_file()).collect();
    found.sort();
    Ok(found)
}

/// Replaces a file in one step, with the permissions of `like`.
fn replace(path: &Path, content: &[u8], like: &Path) -> Result<(), InstallError> {
    let permissions = fs::metadata(like).map_err(failed("reading", like))?.permissions();
    write_beside(path, content, permissions)
}

/// The runtime may read, and start the plugin, at any time: it sees the old file or the new one.
fn write_beside(path: &Path, content: &[u8], permissions: Permissions) -> Result<(), InstallError> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".warren-new");
    let beside = path.with_file_name(name);
    let written = fs::write(&beside, content)
        .and_then(|()| fs::set_permissions(&beside, permissions))
        .and_then(|()| fs::File::open(&beside)?.sync_all())
        .and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&beside);
    }
    written.map_err(failed("writing", path))
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> InstallError {
    move |source| InstallError::File { what, path: path.to_owned(), source }
}

#[cfg(test)]
#[path = "install_tests.rs"]
mod tests;
