//! Overload: shedding load before memory runs out.
//!
//! One thread reads how much memory is in use ten times a second and publishes a [`Pressure`], which
//! workers read with one atomic load. The steps are those that Envoy's edge guide advises for its
//! overload manager: shrink at 95 % of the limit, then stop accepting; requests that still come are
//! answered with 503.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::Shared;

/// Time between two readings.
const INTERVAL: Duration = Duration::from_millis(100);

/// Readings between two attempts to give freed memory back to the system.
const TRIM_EVERY: u32 = 10;

/// How much memory there is left.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub(crate) enum Pressure {
    /// Enough.
    Normal = 0,
    /// Little: idle connections are closed.
    Shrinking = 1,
    /// None: nothing is accepted, and requests are answered with 503.
    Overloaded = 2,
}

impl Pressure {
    pub(super) fn from_u8(value: u8) -> Self {
        match value {
            0 => Self::Normal,
            1 => Self::Shrinking,
            _ => Self::Overloaded,
        }
    }

    /// The pressure of `used` bytes of `limit`. What was reached is left 5 % lower, so that a reading
    /// that wavers does not.
    fn after(self, used: u64, limit: u64) -> Self {
        let percent = |percent: u64| limit / 100 * percent;
        if used >= limit {
            Self::Overloaded
        } else if used >= percent(95) {
            self.max(Self::Shrinking)
        } else if used >= percent(90) {
            self.min(Self::Shrinking)
        } else {
            Self::Normal
        }
    }
}

/// How much memory may be used.
#[derive(Clone, Debug)]
pub struct MemoryLimit {
    /// Bytes.
    pub max: u64,
    /// What says how much is used.
    pub usage: MemoryUsage,
}

/// What says how much memory is used.
#[derive(Clone, Debug)]
pub enum MemoryUsage {
    /// The anonymous memory of this process that is resident: what the kernel cannot take back.
    Process,
    /// A file that holds a number of bytes, as a cgroup's `memory.current` does.
    File(PathBuf),
}

impl MemoryUsage {
    /// Reads it. Bytes.
    fn read(&self) -> io::Result<u64> {
        let (text, unit) = match self {
            Self::Process => {
                let status = fs::read_to_string("/proc/self/status")?;
                let line = status
                    .lines()
                    .find_map(|line| line.strip_prefix("RssAnon:"));
                let kibibytes = line.and_then(|line| line.strip_suffix("kB"));
                (kibibytes.map(str::to_owned), 1024)
            }
            Self::File(path) => (Some(fs::read_to_string(path)?), 1),
        };
        text.and_then(|text| text.trim().parse::<u64>().ok())
            .map(|count| count.saturating_mul(unit))
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }
}

/// The thread that watches over memory.
#[derive(Debug)]
pub(super) struct MemoryWatch {
    thread: Option<JoinHandle<()>>,
    control: Arc<Control>,
}

#[derive(Debug, Default)]
struct Control {
    ended: Mutex<bool>,
    end: Condvar,
    /// The last reading. Bytes.
    used: AtomicU64,
}

impl MemoryWatch {
    /// Reads once, so that a source that cannot be read is found out, and goes on reading.
    pub(super) fn start(limit: MemoryLimit, shared: Arc<Shared>) -> io::Result<Self> {
        let control = Arc::new(Control::default());
        control.used.store(limit.usage.read()?, Ordering::Relaxed);
        let of_thread = Arc::clone(&control);
        let thread = std::thread::Builder::new()
            .name("kgw-memory".to_owned())
            .spawn(move || of_thread.watch(&limit, &shared))?;
        Ok(Self {
            thread: Some(thread),
            control,
        })
    }

    /// The last reading. Bytes.
    pub(super) fn used(&self) -> u64 {
        self.control.used.load(Ordering::Relaxed)
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        *self.control.ended.lock() = true;
        self.control.end.notify_all();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has nothing more to say.
            let _ = thread.join();
        }
    }
}

impl Control {
    fn watch(&self, limit: &MemoryLimit, shared: &Shared) {
        let mut readings: u32 = 0;
        let mut ended = self.ended.lock();
        while !*ended {
            // A reading that fails once changes nothing.
            if let Ok(used) = limit.usage.read() {
                self.used.store(used, Ordering::Relaxed);
                let pressure = shared.pressure().after(used, limit.max);
                shared.set_pressure(pressure);
                readings = readings.wrapping_add(1);
                if pressure > Pressure::Normal && readings.is_multiple_of(TRIM_EVERY) {
                    give_back_freed_memory();
                }
            }
            self.end.wait_for(&mut ended, INTERVAL);
        }
    }
}

/// Gives memory that was freed back to the system. The C library keeps it for later, and what it keeps
/// would count as used for ever.
pub(super) fn give_back_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(unsafe_code, reason = "the C library offers no other way")]
    // SAFETY: `malloc_trim` has no preconditions and may be called from any thread (malloc_trim(3)).
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_rises_at_once_and_falls_5_percent_lower() {
        let mut pressure = Pressure::Normal;
        let mut seen = Vec::new();
        for used in [0, 94, 95, 99, 100, 200, 99, 95, 94, 90, 89, 94, 100, 0] {
            pressure = pressure.after(used * 10, 1000);
            seen.push(pressure as u8);
        }
        assert_eq!(seen, [0, 0, 1, 1, 2, 2, 2, 2, 1, 1, 0, 0, 2, 0]);
    }

    #[test]
    fn a_process_uses_memory() {
        let before = MemoryUsage::Process.read().unwrap();
        let block = vec![1_u8; 64 << 20];
        let after = MemoryUsage::Process.read().unwrap();
        assert!(after >= before + (32 << 20), "{before} {after}");
        assert_eq!(block.len(), 64 << 20);
    }

    #[test]
    fn what_is_no_number_is_an_error() {
        let nothing = MemoryUsage::File(PathBuf::from("/dev/null"));
        assert!(nothing.read().is_err());
    }
}
