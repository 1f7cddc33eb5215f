//! What a sink writes to: a file, a FIFO, or the process's standard output.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use socket2::SockRef;

/// Takes bytes; a test puts a file that fails in its place.
pub(super) trait Output: fmt::Debug + Send {
    /// Writes some of `bytes` without waiting; `WouldBlock` when none can be taken.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Opens the same path anew; keeps the old file when that fails.
    fn reopen(&mut self) -> io::Result<()>;
}

/// An [`Output`] of this machine.
#[derive(Debug)]
pub(super) struct FileOutput {
    path: PathBuf,
    /// Nothing for a FIFO that has no reader yet.
    target: Option<Target>,
}

#[derive(Debug)]
enum Target {
    File(File),
    /// A socket as standard output: sent to without changing its flags, which others share.
    Socket(File),
}

impl FileOutput {
    /// Opens `path` for appending; creates it with mode 0644.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            target: open(path)?,
        })
    }
}

impl Output for FileOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.target.is_none() {
            self.target = open(&self.path)?;
        }
        match &mut self.target {
            Some(Target::File(file)) => file.write(bytes),
            Some(Target::Socket(socket)) => SockRef::from(&*socket)
                .send_with_flags(bytes, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL),
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.target = open(&self.path)?;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<Option<Target>> {
    match path.to_str() {
        Some("/dev/stdout") => standard(io::stdout().as_fd(), "/proc/self/fd/1").map(Some),
        Some("/dev/stderr") => standard(io::stderr().as_fd(), "/proc/self/fd/2").map(Some),
        _ => named(path),
    }
}

/// Opens a path. `O_NONBLOCK` makes a FIFO with a slow reader, or none, answer at once.
fn named(path: &Path) -> io::Result<Option<Target>> {
    let opened = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o644)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path);
    match opened {
        Ok(file) => Ok(Some(Target::File(file))),
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) && is_fifo(path) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Takes over a standard stream without changing it for the rest of the process.
///
/// A regular file is shared, so that its position is. A pipe or terminal is opened a second time, to
/// be non-blocking on its own; where that is not allowed it is shared too, and a reader that stalls
/// then holds up the other sinks, though never a worker.
fn standard(fd: BorrowedFd<'_>, name: &str) -> io::Result<Target> {
    let shared = File::from(fd.try_clone_to_owned()?);
    let kind = shared.metadata()?.file_type();
    if kind.is_socket() {
        return Ok(Target::Socket(shared));
    }
    if kind.is_fifo() || kind.is_char_device() {
        let own = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(name);
        return Ok(Target::File(own.unwrap_or(shared)));
    }
    Ok(Target::File(shared))
}

fn is_fifo(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|metadata| metadata.file_type().is_fifo())
}
