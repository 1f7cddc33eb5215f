//! `kgw._native.engine`: the data plane as a Python object.
//!
//! No thread of the engine ever attaches to the interpreter, and every call here that can take time
//! detaches from it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::process;
use std::sync::Arc;
use std::time::Duration;

use kgw_engine::runtime::{
    self, Caller, Doorbell, EngineError, ListeningSocket, MemoryLimit, MemoryUsage, Options, Within,
};
use pyo3::exceptions::{PyLookupError, PyOSError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::access_log::{Tap, json_program};
use crate::bridge::Bridge;
use crate::error::{bind_error, config_error, not_running};

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("IR_VERSION", kgw_engine::config::ir::VERSION)?;
    module.add_class::<Engine>()
}

/// A data plane; see the stub for its documentation.
#[pyclass(frozen, module = "kgw._native.engine")]
struct Engine {
    engine: runtime::Engine,
    /// Threads do not survive a fork: the engine of a parent is of no use to its child.
    owner: u32,
}

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (*, workers=None, manual_clock=false, max_connections=None, max_memory=None, memory_usage_file=None, bridge=None, backends=Vec::new()))]
    fn new(
        workers: Option<usize>,
        manual_clock: bool,
        max_connections: Option<u64>,
        max_memory: Option<u64>,
        memory_usage_file: Option<PathBuf>,
        bridge: Option<&Bound<'_, Bridge>>,
        backends: Vec<(String, Bound<'_, PyAny>)>,
    ) -> PyResult<Self> {
        if workers.is_some_and(|workers| !(1..=1024).contains(&workers)) {
            return Err(PyValueError::new_err("workers must be between 1 and 1024"));
        }
        for (name, value) in [
            ("max_connections", max_connections),
            ("max_memory", max_memory),
        ] {
            if value == Some(0) {
                let why = format!("{name} must be positive");
                return Err(PyValueError::new_err(why));
            }
        }
        let defaults = Options::default();
        let usage = memory_usage_file.map_or(MemoryUsage::Process, MemoryUsage::File);
        let options = Options {
            workers,
            manual_clock,
            max_connections: max_connections.unwrap_or(defaults.max_connections),
            memory: max_memory.map(|max| MemoryLimit { max, usage }),
            bridge: bridge.map(|bridge| Arc::clone(&bridge.get().queue)),
        };
        let doorbells = backends
            .into_iter()
            .map(|(backend, socket)| {
                let socket = detached(&socket)?;
                Ok(Doorbell { backend, socket })
            })
            .collect::<PyResult<_>>()?;
        Ok(Self {
            engine: runtime::Engine::with_backends(&options, doorbells),
            owner: process::id(),
        })
    }

    #[pyo3(signature = (config, sockets=Vec::new()))]
    fn start(
        &self,
        py: Python<'_>,
        config: &[u8],
        sockets: Vec<(Option<String>, Bound<'_, PyAny>)>,
    ) -> PyResult<()> {
        let taken = sockets
            .into_iter()
            .map(|(listener, socket)| {
                let socket = detached(&socket)?;
                Ok(ListeningSocket { listener, socket })
            })
            .collect::<PyResult<_>>()?;
        self.call(py, |engine| engine.start_on(config, taken))
    }

    fn apply(&self, py: Python<'_>, config: &[u8]) -> PyResult<u64> {
        self.call(py, |engine| engine.apply(config))
    }

    fn apply_delta(&self, py: Python<'_>, delta: &[u8]) -> PyResult<u64> {
        self.call(py, |engine| engine.apply_delta(delta))
    }

    fn wait_applied(&self, py: Python<'_>, generation: u64, timeout: f64) -> PyResult<bool> {
        let timeout = seconds(timeout)?;
        self.call(py, |engine| engine.wait_applied(generation, timeout))
    }

    fn addresses(&self, py: Python<'_>) -> PyResult<BTreeMap<String, Vec<(String, u16)>>> {
        let addresses = self.call(py, runtime::Engine::addresses)?;
        Ok(addresses
            .into_iter()
            .map(|(listener, bound)| {
                (
                    listener,
                    bound
                        .iter()
                        .map(|at| (at.ip().to_string(), at.port()))
                        .collect(),
                )
            })
            .collect())
    }

    #[pyo3(signature = (listener, *, peer=None, local=None, secure=false, server_name=None))]
    fn connect(
        &self,
        py: Python<'_>,
        listener: &str,
        peer: Option<(String, u16)>,
        local: Option<(String, u16)>,
        secure: bool,
        server_name: Option<&str>,
    ) -> PyResult<RawFd> {
        let caller = Caller {
            peer: address(peer)?,
            local: address(local)?,
            within: Within {
                is_secure: secure,
                server_name: server_name.map(|name| name.to_ascii_lowercase().into_boxed_str()),
            },
        };
        let end = self.call(py, |engine| engine.connect(listener, caller))?;
        Ok(end.into_raw_fd())
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let stats = self.call(py, runtime::Engine::stats)?;
        Ok(PyBytes::new(py, stats.to_string().as_bytes()))
    }

    fn problems(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        self.call(py, runtime::Engine::problems)
    }

    #[pyo3(signature = (min=0.0))]
    fn drain(&self, py: Python<'_>, min: f64) -> PyResult<()> {
        let min = seconds(min)?;
        self.call(py, |engine| engine.drain(min))
    }

    fn listening_sockets(&self, py: Python<'_>) -> PyResult<Vec<(Option<String>, RawFd)>> {
        let sockets = self.call(py, runtime::Engine::listening_sockets)?;
        Ok(sockets
            .into_iter()
            .map(|one| (one.listener, one.socket.into_raw_fd()))
            .collect())
    }

    fn join(&self, py: Python<'_>, timeout: f64) -> PyResult<bool> {
        let timeout = seconds(timeout)?;
        self.call(py, |engine| Ok(engine.join(timeout)))
    }

    fn advance(&self, py: Python<'_>, by: f64) -> PyResult<()> {
        let by = seconds(by)?;
        self.call(py, |engine| engine.advance(by))
    }

    fn next_deadline(&self, py: Python<'_>) -> PyResult<Option<f64>> {
        let left = self.call(py, runtime::Engine::next_deadline)?;
        Ok(left.map(|left| left.as_secs_f64()))
    }

    fn settle(&self, py: Python<'_>, timeout: f64) -> PyResult<bool> {
        let timeout = seconds(timeout)?;
        self.call(py, |engine| engine.settle(timeout))
    }

    fn flush_logs(&self, py: Python<'_>, timeout: f64) -> PyResult<bool> {
        let timeout = seconds(timeout)?;
        self.call(py, |engine| engine.flush_logs(timeout))
    }

    fn tap(&self, py: Python<'_>, format: &str, buffer: usize) -> PyResult<Tap> {
        let program = json_program(py, format)?;
        let tap = self.call(py, |engine| engine.tap(program, buffer))?;
        Ok(tap.into())
    }

    fn reopen_logs(&self, py: Python<'_>) -> PyResult<()> {
        self.call(py, runtime::Engine::reopen_logs)
    }
}

impl Engine {
    /// Calls the engine, detached from the interpreter.
    fn call<T: Send>(
        &self,
        py: Python<'_>,
        call: impl FnOnce(&runtime::Engine) -> Result<T, EngineError> + Send,
    ) -> PyResult<T> {
        if process::id() != self.owner {
            return Err(not_running(py, "the engine belongs to the parent process"));
        }
        py.detach(|| call(&self.engine))
            .map_err(|error| match error {
                EngineError::AlreadyStarted | EngineError::NotRunning => not_running(py, &error),
                EngineError::Bind {
                    ref listener,
                    address,
                    ref source,
                } => bind_error(
                    py,
                    source.raw_os_error(),
                    error.to_string(),
                    listener,
                    address,
                ),
                EngineError::Compile(_) => config_error(py, &error),
                EngineError::NoListener(_) => PyLookupError::new_err(error.to_string()),
                other => PyOSError::new_err(other.to_string()),
            })
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if process::id() == self.owner {
            // Joining threads can take a moment; nothing of the engine needs the interpreter.
            Python::attach(|py| py.detach(|| self.engine.join(Duration::ZERO)));
        }
    }
}

/// Takes the descriptor of a Python socket, which is closed afterwards as far as Python is concerned.
fn detached(socket: &Bound<'_, PyAny>) -> PyResult<OwnedFd> {
    let kind = socket.py().import("socket")?.getattr("socket")?;
    if !socket.is_instance(&kind)? {
        return Err(PyTypeError::new_err("a socket is a socket.socket"));
    }
    // A subclass may have another idea of `detach`.
    let descriptor: RawFd = kind.call_method1("detach", (socket,))?.extract()?;
    if descriptor < 0 {
        return Err(PyValueError::new_err("the socket is closed"));
    }
    #[expect(unsafe_code, reason = "descriptors come from Python as numbers")]
    // SAFETY: `socket.detach` gave up an open descriptor, which nothing else owns from then on.
    let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
    Ok(owned)
}

/// An address of a connection inside the process: loopback's, where nobody has one.
fn address(given: Option<(String, u16)>) -> PyResult<SocketAddr> {
    let Some((host, port)) = given else {
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    };
    let ip: IpAddr = host
        .parse()
        .map_err(|_| PyValueError::new_err(format!("{host:?} is no IP address")))?;
    Ok(SocketAddr::from((ip, port)))
}

fn seconds(seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| PyValueError::new_err("a time must be a finite number of seconds, at least 0"))
}
