//! The engine: binds sockets, starts workers, publishes snapshots, drains.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::process;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use kgw_limit::Tick;
use parking_lot::Mutex;
use serde_json::Value;

use super::memory::{MemoryLimit, MemoryWatch, give_back_freed_memory};
use super::shared::{Phase, Shared};
use super::worker;
use crate::bridge::Bridge;
use crate::clock::Clock;
use crate::config::compile::{CompileError, Compiler};
use crate::config::snapshot::Snapshot;
use crate::filter::ext_authz::counts::CountsByName;
use crate::listen::call::{self, Call, Caller};
use crate::listen::socket::{self, Inherited, Leases, Sockets};
use crate::stats;
use crate::telemetry::access_log::{LogProgram, LogWriter, Tap, WriterOptions};
use crate::upstream::dns::Resolver;
use crate::upstream::forward_proxy::Forwarding;
use crate::upstream::{breaker, in_process};

/// How to run an engine.
#[derive(Clone, Debug)]
pub struct Options {
    /// Worker threads; none is one per CPU that the process may use (cgroup quotas included).
    pub workers: Option<usize>,
    /// A clock that stands still until [`Engine::advance`], for tests.
    pub manual_clock: bool,
    /// Most connections open at once; accepting pauses there. 0 is no limit.
    pub max_connections: u64,
    /// Memory above which load is shed; none is no limit.
    pub memory: Option<MemoryLimit>,
    /// Where filters in Python are asked; none if there are none.
    pub bridge: Option<Arc<Bridge>>,
}

/// The doorbell of a backend inside this process: a connected Unix socket of type `SEQPACKET`. For each
/// connection to the backend, one end of a stream is sent through it.
#[derive(Debug)]
pub struct Doorbell {
    /// What clusters call the backend.
    pub backend: String,
    /// The engine's end. It must not block.
    pub socket: OwnedFd,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            workers: None,
            manual_clock: false,
            // Envoy's edge guide advises this for the process.
            max_connections: 50_000,
            memory: None,
            bridge: None,
        }
    }
}

/// A listening socket, and what it is for.
#[derive(Debug)]
pub struct ListeningSocket {
    /// The id of the listener, if it is known. Sockets for port 0 are told apart by it.
    pub listener: Option<String>,
    /// The socket: one of TCP that listens, or one of UDP that is bound.
    pub socket: OwnedFd,
}

/// What can keep an engine from doing as told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The engine was started already.
    #[error("the engine was started already")]
    AlreadyStarted,
    /// An address cannot be bound.
    #[error("cannot listen on {address} for {listener}: {source}")]
    Bind {
        /// The listener.
        listener: String,
        /// The address.
        address: SocketAddr,
        /// The operating system's error.
        source: io::Error,
    },
    /// The configuration does not compile.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// No worker takes another connection now.
    #[error("too many connections wait to be served")]
    Busy,
    /// There is no such listener.
    #[error("there is no listener {0:?}")]
    NoListener(String),
    /// The engine is not running.
    #[error("the engine is not running")]
    NotRunning,
    /// The memory in use cannot be read.
    #[error("cannot read how much memory is used: {0}")]
    Memory(io::Error),
    /// A socket cannot be taken over or duplicated.
    #[error("cannot use a listening socket: {0}")]
    Socket(io::Error),
    /// There is no file descriptor for whoever reads the access log.
    #[error("cannot read the access log: {0}")]
    Tap(io::Error),
    /// A thread cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// A data plane.
#[derive(Debug)]
pub struct Engine {
    clock: Clock,
    workers: usize,
    max_connections: u64,
    memory: Option<MemoryLimit>,
    bridge: Option<Arc<Bridge>>,
    resolver: Arc<Resolver>,
    /// Hosts that requests name.
    forwarding: Arc<Forwarding>,
    /// What services that decide about requests are counted under.
    authorization_counts: Arc<CountsByName>,
    /// The process that has the threads.
    owner: u32,
    /// Held while a configuration is compiled, which can take seconds.
    compiling: Mutex<Compiling>,
    /// Held for a moment only, so that whoever asks for counters waits for nothing. Locked after the
    /// other one, if both are.
    life: Mutex<Life>,
}

#[derive(Debug, Default)]
struct Compiling {
    compiler: Compiler,
    leases: Leases,
}

#[derive(Debug, Default)]
struct Life {
    running: Option<Running>,
    ended: bool,
}

impl Life {
    fn running(&self) -> Result<&Running, EngineError> {
        self.running.as_ref().ok_or(EngineError::NotRunning)
    }
}

/// The size of a configuration from which on a start gives back what making it took: the texts and
/// trees of a hundred thousand routes are more than the routes themselves.
const MUCH: usize = 1 << 20;

/// What a generation is compiled from.
#[derive(Clone, Copy)]
enum Source<'a> {
    /// A configuration.
    Whole(&'a [u8]),
    /// Changes to the newest one.
    Delta(&'a [u8]),
}

#[derive(Debug)]
struct Running {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    logs: Arc<LogWriter>,
    memory: Option<MemoryWatch>,
    /// Published snapshots that a worker or connection may still hold. They are freed by the
    /// thread that applies the next one or waits for it: no worker pays for freeing 100,000 routes.
    past: Vec<Arc<Snapshot>>,
}

impl Running {
    /// Takes the snapshots that nobody holds any longer, for the caller to free.
    fn take_past(&mut self) -> Vec<Arc<Snapshot>> {
        self.past
            .extract_if(.., |past| Arc::strong_count(past) == 1)
            .collect()
    }
}

impl Engine {
    /// Makes an engine that does nothing yet.
    pub fn new(options: &Options) -> Self {
        Self::with_backends(options, Vec::new())
    }

    /// Makes an engine whose clusters may be served by backends inside this process.
    pub fn with_backends(options: &Options, doorbells: Vec<Doorbell>) -> Self {
        let doorbells = doorbells.into_iter();
        let doorbells = doorbells.map(|doorbell| (doorbell.backend, doorbell.socket));
        let in_process = in_process::backends(doorbells.collect());
        let workers = options.workers.unwrap_or_else(|| {
            std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
        });
        let clock = if options.manual_clock {
            Clock::manual()
        } else {
            Clock::system()
        };
        let resolver = Arc::new(Resolver::new(clock.clone()));
        let forwarding = Forwarding::new(clock.clone());
        let compiler = Compiler::new(
            options.bridge.clone(),
            in_process,
            Arc::clone(&resolver),
            Arc::clone(&forwarding),
            clock.clone(),
        );
        Self {
            clock,
            resolver,
            forwarding,
            authorization_counts: compiler.authorization_counts(),
            workers: workers.max(1),
            max_connections: options.max_connections,
            memory: options.memory.clone(),
            bridge: options.bridge.clone(),
            owner: process::id(),
            compiling: Mutex::new(Compiling {
                compiler,
                ..Compiling::default()
            }),
            life: Mutex::default(),
        }
    }

    /// Compiles a configuration (IR as JSON), binds its addresses and starts serving.
    pub fn start(&self, config: &[u8]) -> Result<(), EngineError> {
        self.start_on(config, Vec::new())
    }

    /// Starts as [`Engine::start`] does, but listens on those of `sockets` that are bound to what the
    /// configuration asks for, in place of binding it. The others are closed.
    pub fn start_on(
        &self,
        config: &[u8],
        sockets: Vec<ListeningSocket>,
    ) -> Result<(), EngineError> {
        let mut inherited = Inherited::default();
        for ListeningSocket { listener, socket } in sockets {
            inherited
                .add(listener, socket)
                .map_err(EngineError::Socket)?;
        }
        let mut compiling = self.compiling.lock();
        let mut life = self.life.lock();
        if life.running.is_some() || life.ended {
            return Err(EngineError::AlreadyStarted);
        }
        let options = WriterOptions {
            workers: self.workers,
            ..WriterOptions::default()
        };
        let logs = Arc::new(LogWriter::start(options).map_err(EngineError::Thread)?);
        let (snapshot, sockets) = self.compile(
            &mut compiling,
            Source::Whole(config),
            &logs,
            &Sockets::new(),
            &mut inherited,
            1,
        )?;
        if config.len() >= MUCH {
            give_back_freed_memory();
        }
        let snapshot = Arc::new(snapshot);
        let shared = Shared::new(
            self.clock.clone(),
            self.workers,
            self.max_connections,
            Arc::clone(&snapshot),
            sockets,
        );
        let shared = Arc::new(shared);
        let watch = |limit| MemoryWatch::start(limit, Arc::clone(&shared));
        let memory = self.memory.clone().map(watch).transpose();
        let memory = memory.map_err(EngineError::Memory)?;
        let mut threads = Vec::with_capacity(self.workers);
        for index in 0..self.workers {
            let shared_of_worker = Arc::clone(&shared);
            let thread = worker::runtime().and_then(|runtime| {
                std::thread::Builder::new()
                    .name(format!("kgw-worker-{index}"))
                    .spawn(move || worker::run(index, runtime, &shared_of_worker))
            });
            match thread {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    shared.enter(Phase::Closing);
                    for thread in threads {
                        // A worker that panicked has nothing more to say.
                        let _ = thread.join();
                    }
                    return Err(EngineError::Thread(error));
                }
            }
        }
        life.running = Some(Running {
            shared,
            threads,
            logs,
            memory,
            past: vec![snapshot],
        });
        Ok(())
    }

    /// Compiles a configuration and makes it the one that is served from each worker's next request
    /// on. Returns its generation. On error the last one goes on serving, untouched.
    pub fn apply(&self, config: &[u8]) -> Result<u64, EngineError> {
        self.publish(Source::Whole(config))
    }

    /// Compiles changes to the newest generation ([`config::delta`](crate::config::delta) as JSON) and
    /// serves the result as [`Engine::apply`] does that of a whole configuration. Returns its
    /// generation. On error the last one goes on serving, untouched, and the next changes are to it.
    pub fn apply_delta(&self, delta: &[u8]) -> Result<u64, EngineError> {
        self.publish(Source::Delta(delta))
    }

    fn publish(&self, source: Source<'_>) -> Result<u64, EngineError> {
        let mut compiling = self.compiling.lock();
        let (shared, logs) = {
            let life = self.life.lock();
            let running = life.running()?;
            (Arc::clone(&running.shared), Arc::clone(&running.logs))
        };
        if shared.phase() != Phase::Running {
            return Err(EngineError::NotRunning);
        }
        let generation = shared.generation() + 1;
        let (snapshot, sockets) = self.compile(
            &mut compiling,
            source,
            &logs,
            &shared.sockets(),
            &mut Inherited::default(),
            generation,
        )?;
        let snapshot = Arc::new(snapshot);
        shared.publish(Arc::clone(&snapshot), sockets);
        let past = self.life.lock().running.as_mut().map(|running| {
            running.past.push(snapshot);
            running.take_past()
        });
        drop(past);
        Ok(generation)
    }

    /// Compiles a configuration and binds the addresses that are not bound yet.
    fn compile(
        &self,
        compiling: &mut Compiling,
        source: Source<'_>,
        logs: &LogWriter,
        sockets: &Sockets,
        inherited: &mut Inherited,
        generation: u64,
    ) -> Result<(Snapshot, Sockets), EngineError> {
        let compiler = &mut compiling.compiler;
        let snapshot = match source {
            Source::Whole(config) => compiler.compile(config, logs, self.workers, generation),
            Source::Delta(delta) => compiler.compile_delta(delta, logs, self.workers, generation),
        }?;
        let listeners = || snapshot.listeners.values();
        let wanted = listeners().flat_map(|listener| listener.bind.iter().cloned());
        let leases = &mut compiling.leases;
        let sockets = socket::rebind(sockets, wanted, self.workers, leases, inherited).map_err(
            |(key, source)| {
                let asked = listeners().find(|listener| listener.bind.contains(&key));
                EngineError::Bind {
                    listener: asked.map_or_else(String::new, |listener| listener.id.to_string()),
                    address: key.requested,
                    source,
                }
            },
        )?;
        compiling
            .compiler
            .commit(Tick::from_nanos(self.clock.now().0));
        Ok((snapshot, sockets))
    }

    pub(crate) fn shared(&self) -> Result<Arc<Shared>, EngineError> {
        Ok(Arc::clone(&self.life.lock().running()?.shared))
    }

    /// Waits until every worker serves `generation` (or a later one) and listens on its sockets.
    /// Returns whether they do.
    pub fn wait_applied(&self, generation: u64, timeout: Duration) -> Result<bool, EngineError> {
        let applied = self.shared()?.wait_acknowledged(generation, timeout);
        let past = self.life.lock().running.as_mut().map(Running::take_past);
        drop(past);
        Ok(applied)
    }

    /// Connects to a listener from inside of the process, bound or not, and returns the caller's end: a
    /// Unix stream socket that does not block. HTTP/1.1 is spoken on it, or bytes, as on the listener
    /// itself, but neither TLS nor a PROXY header.
    pub fn connect(&self, listener: &str, caller: Caller) -> Result<OwnedFd, EngineError> {
        let shared = self.shared()?;
        if shared.phase() >= Phase::Draining {
            return Err(EngineError::NotRunning);
        }
        let snapshot = shared.snapshot();
        let Some((id, _)) = snapshot.listeners.get_key_value(listener) else {
            return Err(EngineError::NoListener(listener.to_owned()));
        };
        let (ours, theirs) = call::pair().map_err(EngineError::Socket)?;
        let taken = shared.call(Call {
            listener: Arc::clone(id),
            socket: theirs,
            caller,
        });
        if taken {
            return Ok(ours);
        }
        Err(match shared.phase() {
            Phase::Running | Phase::LameDuck => EngineError::Busy,
            Phase::Draining | Phase::Closing => EngineError::NotRunning,
        })
    }

    /// The bound addresses by listener; none once draining began.
    pub fn addresses(&self) -> Result<BTreeMap<String, Vec<SocketAddr>>, EngineError> {
        let shared = self.shared()?;
        let (snapshot, sockets) = (shared.snapshot(), shared.sockets());
        Ok(snapshot
            .listeners
            .values()
            .map(|listener| {
                let bound = listener.bind.iter().filter_map(|key| sockets.get(key));
                (
                    listener.id.to_string(),
                    bound.map(|bound| bound.local).collect(),
                )
            })
            .collect())
    }

    /// Counters, summed over workers, and the access logs' own.
    pub fn stats(&self) -> Result<Value, EngineError> {
        let life = self.life.lock();
        let running = life.running()?;
        let mut stats = stats::sum(&running.shared.stats);
        stats.insert("generation".to_owned(), running.shared.generation().into());
        stats.insert("workers".to_owned(), self.workers.into());
        stats.insert(
            "memory_pressure".to_owned(),
            (running.shared.pressure() as u8).into(),
        );
        if let Some(memory) = &running.memory {
            stats.insert("memory_used".to_owned(), memory.used().into());
        }
        let active = self.bridge.as_ref().map_or(0, |bridge| bridge.active());
        stats.insert("python_filter_active".to_owned(), active.into());
        let (looked_up, not_found) = self.resolver.counts();
        let (of_requests, lost) = self.forwarding.resolver().counts();
        let (looked_up, not_found) = (looked_up + of_requests, not_found + lost);
        stats.insert("dns_lookup_total".to_owned(), looked_up.into());
        stats.insert("dns_lookup_fail".to_owned(), not_found.into());
        let forwarded = self.forwarding.count();
        stats.insert("forward_proxy_hosts".to_owned(), forwarded.into());
        let logs = running.logs.sinks().into_iter().map(|sink| {
            let counters = sink.counters();
            serde_json::json!({
                "path": sink.path().to_string_lossy(),
                "written": counters.written,
                "dropped": counters.dropped,
                "bytes": counters.bytes,
                "errors": counters.errors,
            })
        });
        let counts = self.authorization_counts.values();
        stats.insert("ext_authz".to_owned(), counts);
        let snapshot = running.shared.snapshot();
        let breakers = snapshot.tended.iter();
        let breakers = breakers.filter_map(|one| Some((&*one.name, one.breaker.as_deref()?)));
        let gauges = breaker::gauges(breakers);
        stats.insert("circuit_breakers".to_owned(), gauges);
        let outliers = snapshot.tended.iter();
        let outliers = outliers.filter_map(|one| {
            let of_cluster = one.outliers.as_ref()?.stats();
            Some((one.name.clone(), of_cluster))
        });
        stats.insert("outlier_detection".to_owned(), outliers.collect());
        let checks = snapshot.tended.iter();
        let checks = checks.filter_map(|one| {
            let of_cluster = one.checks.as_ref()?.stats(one);
            Some((one.name.clone(), of_cluster))
        });
        stats.insert("health_check".to_owned(), checks.collect());
        stats.insert("access_logs".to_owned(), logs.collect());
        Ok(Value::Object(stats))
    }

    /// What the compilation of the current configuration replaced or left out, in words.
    pub fn problems(&self) -> Result<Vec<String>, EngineError> {
        Ok(self.shared()?.snapshot().problems.clone())
    }

    /// Starts draining. For `min`, connections are accepted still, and each answer closes its
    /// connection. Then nothing new is accepted, and idle connections are closed.
    pub fn drain(&self, min: Duration) -> Result<(), EngineError> {
        self.shared()?.drain_after(min);
        Ok(())
    }

    /// Duplicates of the sockets that are listened on, for another process; none once nothing is
    /// accepted any longer.
    pub fn listening_sockets(&self) -> Result<Vec<ListeningSocket>, EngineError> {
        let shared = self.shared()?;
        shared.share_sockets();
        let (snapshot, sockets) = (shared.snapshot(), shared.sockets());
        let mut duplicates = Vec::new();
        for (key, bound) in &sockets {
            let listeners = &snapshot.listeners;
            let listener = listeners.values().find(|one| one.bind.contains(key));
            for socket in bound.all_sockets().map_err(EngineError::Socket)? {
                duplicates.push(ListeningSocket {
                    listener: listener.map(|listener| listener.id.to_string()),
                    socket,
                });
            }
        }
        Ok(duplicates)
    }

    /// Waits until every worker has ended and stops them at the time-out. Returns whether they had
    /// ended by themselves. Afterwards the logs are written and the engine cannot be started again.
    ///
    /// While it waits the engine can still be asked for its counters, and another `join` with a
    /// shorter time-out ends the wait.
    pub fn join(&self, timeout: Duration) -> bool {
        let shared = {
            let mut life = self.life.lock();
            life.ended = true;
            match &life.running {
                Some(running) => Arc::clone(&running.shared),
                None => return true,
            }
        };
        let ended = shared.wait_acknowledged(u64::MAX, timeout) && shared.phase() != Phase::Closing;
        shared.enter(Phase::Closing);
        self.resolver.end();
        self.forwarding.resolver().end();
        let running = self.life.lock().running.take();
        if let Some(running) = running {
            for thread in running.threads {
                // A worker that panicked has nothing more to say.
                let _ = thread.join();
            }
            // Nothing is logged from here on.
            shared.taps.close();
            drop(running.memory);
            running.logs.flush(Duration::from_secs(1));
        }
        ended
    }

    /// Turns a manual clock.
    pub fn advance(&self, by: Duration) -> Result<(), EngineError> {
        let shared = self.shared()?;
        self.clock.advance(by);
        shared.wake();
        self.resolver.wake();
        self.forwarding.resolver().wake();
        Ok(())
    }

    /// How long from now the first deadline is that anything waits for by a manual clock; none if
    /// nothing does. What waits may also end before, so an advance by this can change nothing.
    pub fn next_deadline(&self) -> Result<Option<Duration>, EngineError> {
        self.shared()?;
        Ok(self.clock.next_deadline())
    }

    /// Waits until the workers have looked at the clock, and have done what follows from it and from
    /// what their sockets had received by now. Returns whether they have.
    pub fn settle(&self, timeout: Duration) -> Result<bool, EngineError> {
        Ok(self.shared()?.wait_settled(timeout))
    }

    /// Waits until every access log line that was rendered so far is written, or sent. Returns whether it is.
    pub fn flush_logs(&self, timeout: Duration) -> Result<bool, EngineError> {
        let logs = Arc::clone(&self.life.lock().running()?.logs);
        Ok(logs.flush(timeout))
    }

    /// Lets a reader in this process have a line for each request and connection that ends from now on,
    /// whatever access logs there are. For each worker, `buffer` bytes of them may wait to be read.
    pub fn tap(&self, program: LogProgram, buffer: usize) -> Result<Tap, EngineError> {
        Tap::open(&self.shared()?.taps, program, buffer).map_err(EngineError::Tap)
    }

    /// Opens the access logs' files anew, for log rotation.
    pub fn reopen_logs(&self) -> Result<(), EngineError> {
        self.life.lock().running()?.logs.reopen();
        Ok(())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if process::id() == self.owner {
            self.join(Duration::ZERO);
        } else {
            // A child of fork has the engine's memory but not its threads, and would wait for them
            // for ever, as for a lock that one of them had.
            std::mem::forget(self.life.get_mut().running.take());
            std::mem::forget(Arc::clone(&self.resolver));
            std::mem::forget(Arc::clone(&self.forwarding));
        }
    }
}
