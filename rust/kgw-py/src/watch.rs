//! `kgw._native.watch`: what happens to the files of directories, as Linux tells it (inotify).

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init};
use rustix::io::Errno;

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Watch>()
}

/// Directories that are watched; see the stub for its documentation.
#[pyclass(frozen, module = "kgw._native.watch")]
struct Watch {
    inotify: OwnedFd,
    directories: HashMap<i32, PathBuf>,
}

/// A directory, the name of the entry if it is about one, and whether nothing more is to come.
type Change = (Option<PathBuf>, Option<String>, bool);

#[pymethods]
impl Watch {
    #[new]
    fn new(directories: Vec<PathBuf>) -> PyResult<Self> {
        let inotify = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(error)?;
        let mut watched = HashMap::with_capacity(directories.len());
        for directory in directories {
            let number = add_watch(&inotify, &directory, EVENTS).map_err(error)?;
            watched.insert(number, directory);
        }
        Ok(Self {
            inotify,
            directories: watched,
        })
    }

    fn fileno(&self) -> RawFd {
        self.inotify.as_raw_fd()
    }

    fn changes(&self) -> PyResult<Vec<Change>> {
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        let mut changes = Vec::new();
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::WOULDBLOCK) => return Ok(changes),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(error(errno)),
            };
            let flags = event.events();
            let directory = self.directories.get(&event.wd()).cloned();
            // A name that is not text is not one of ours; an overflow is about anything.
            let name = event.file_name();
            let name = name.map(|name| name.to_string_lossy().into_owned());
            let entry = !flags.intersects(ReadFlags::ISDIR | ReadFlags::QUEUE_OVERFLOW);
            let complete = flags.intersects(ReadFlags::CLOSE_WRITE | ReadFlags::MOVED_TO);
            changes.push((directory, name.filter(|_| entry), complete));
        }
    }
}

/// Everything that changes what a directory holds, or what its files do.
const EVENTS: WatchFlags = WatchFlags::ATTRIB
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

fn error(errno: Errno) -> PyErr {
    PyOSError::new_err((errno.raw_os_error(), errno.to_string()))
}
