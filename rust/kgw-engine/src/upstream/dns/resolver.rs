//! When names are looked up, and the threads that do it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::host::Host;
use super::system;
use crate::clock::{Clock, Nanos};

/// Look-ups that run at a time. One may take as long as the system's resolver waits for its servers.
pub(super) const THREADS: usize = 4;

/// The same of names that clients choose: some of them may be made to take long.
const THREADS_OF_CLIENTS: usize = 16;

/// Time until a name is looked up again that clients chose and that was not found. Milliseconds.
const NOT_FOUND_MS: u64 = 5_000;

/// What finds the addresses of a name. It may block.
type LookUp = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// Looks names up, first when they are [added](Self::add) and then at their intervals.
///
/// Its threads begin with the first name. When it is dropped they end, one that waits for the system
/// after that: nobody waits for it.
#[derive(Debug)]
pub(crate) struct Resolver(Arc<Schedule>);

/// What is to be looked up, and when.
struct Schedule {
    clock: Clock,
    /// Most threads.
    most: usize,
    look_up: Box<LookUp>,
    due: Mutex<Due>,
    changed: Condvar,
    total: AtomicU64,
    failed: AtomicU64,
}

#[derive(Default)]
struct Due {
    hosts: BinaryHeap<Reverse<Entry>>,
    /// For entries of one moment: first come, first looked up.
    added: u64,
    threads: usize,
    /// Those of them that have not looked at anything yet.
    starting: usize,
    /// Those of them that wait for a host to be due.
    idle: usize,
    has_ended: bool,
}

/// A host that is to be looked up.
struct Entry {
    at: Nanos,
    number: u64,
    host: Weak<Host>,
    /// Which of its names.
    name: usize,
}

impl Resolver {
    /// Makes a resolver that asks the system.
    pub(crate) fn new(clock: Clock) -> Self {
        Self::with(clock, THREADS, system::look_up)
    }

    /// Makes one for names that clients choose.
    pub(crate) fn of_clients(clock: Clock) -> Self {
        Self::with(clock, THREADS_OF_CLIENTS, system::look_up)
    }

    pub(crate) fn with(
        clock: Clock,
        most: usize,
        look_up: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Schedule {
            clock,
            most,
            look_up: Box::new(look_up),
            due: Mutex::default(),
            changed: Condvar::new(),
            total: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }))
    }

    /// Looks a host up now, and then at its interval as long as somebody else has it.
    pub(crate) fn add(&self, host: &Arc<Host>) {
        let mut due = self.0.due.lock();
        let now = self.0.clock.now();
        for name in 0..host.names().len() {
            due.push(now, Arc::downgrade(host), name);
        }
        while due.threads < self.0.most && due.idle + due.starting < due.hosts.len() {
            let schedule = Arc::clone(&self.0);
            let number = due.threads;
            let thread = std::thread::Builder::new().name(format!("kgw-dns-{number}"));
            if thread.spawn(move || schedule.run()).is_err() {
                // Nobody would ever look it up, and nobody is to wait for that.
                for name in (0..host.names().len()).filter(|_| due.threads == 0) {
                    host.note(name, None, now);
                }
                break;
            }
            due.threads += 1;
            due.starting += 1;
        }
        drop(due);
        self.0.changed.notify_all();
    }

    /// Makes the threads look at the clock, which was turned by hand.
    pub(crate) fn wake(&self) {
        // Under the lock: whoever has just read the clock waits by then.
        let _due = self.0.due.lock();
        self.0.changed.notify_all();
    }

    /// Looks nothing up any more.
    pub(crate) fn end(&self) {
        self.0.due.lock().has_ended = true;
        self.0.changed.notify_all();
    }

    /// Hosts that wait to be due.
    #[cfg(test)]
    fn waiting(&self) -> usize {
        self.0.due.lock().hosts.len()
    }

    /// How many look-ups there were, and how many of them had no answer.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(&self.0.total), read(&self.0.failed))
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.end();
    }
}

impl Schedule {
    /// Looks hosts up as they are due, until the resolver is dropped.
    fn run(&self) {
        self.due.lock().starting -= 1;
        while let Some((host, at)) = self.next() {
            let name = &host.names()[at];
            let found = (self.look_up)(&name.hostname, name.port);
            let found = found.ok().filter(|addresses| !addresses.is_empty());
            self.total.fetch_add(1, Ordering::Relaxed);
            if found.is_none() {
                self.failed.fetch_add(1, Ordering::Relaxed);
            }
            let now = self.clock.now();
            host.note(at, found, now);
            let is_lost = host.waiting.is_some() && host.endpoints().is_empty();
            let refresh_ms = if is_lost {
                host.refresh_ms.min(NOT_FOUND_MS)
            } else {
                host.refresh_ms
            };
            let wait_ms = refresh_ms.saturating_add(fastrand::u64(0..=host.jitter_ms));
            let due_at = now.after_ms(wait_ms);
            self.due.lock().push(due_at, Arc::downgrade(&host), at);
        }
    }

    /// Waits for the next name to be due. None once there is no next one.
    fn next(&self) -> Option<(Arc<Host>, usize)> {
        let mut due = self.due.lock();
        loop {
            if due.has_ended {
                return None;
            }
            let now = self.clock.now();
            let next = due.hosts.peek().map(|Reverse(first)| first.at);
            if next.is_some_and(|at| at <= now) {
                let first = due.hosts.pop();
                if let Some(Reverse(entry)) = first
                    && let Some(host) = entry.host.upgrade()
                {
                    return Some((host, entry.name));
                }
                continue;
            }
            due.idle += 1;
            match next {
                Some(at) if !self.clock.is_manual() => {
                    let wait = Duration::from_nanos(at.since(now));
                    self.changed.wait_for(&mut due, wait);
                }
                // The hand that turns the clock wakes.
                _ => self.changed.wait(&mut due),
            }
            due.idle -= 1;
        }
    }
}

impl Due {
    fn push(&mut self, at: Nanos, host: Weak<Host>, name: usize) {
        self.added += 1;
        self.hosts.push(Reverse(Entry {
            at,
            number: self.added,
            host,
            name,
        }));
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schedule").finish_non_exhaustive()
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::super::Hosts;
    use super::*;
    use crate::config::ir::DnsName;

    type Answer = io::Result<Vec<SocketAddr>>;

    /// A resolver that asks the test, and a clock.
    struct Lab {
        hosts: Hosts,
        resolver: Arc<Resolver>,
        jitter_ms: u64,
        clock: Clock,
        asked: mpsc::Receiver<(String, mpsc::Sender<Answer>)>,
    }

    impl Lab {
        fn new() -> Self {
            let (ask, asked) = mpsc::channel();
            let ask = Mutex::new(ask);
            let clock = Clock::manual();
            let resolver = Resolver::with(clock.clone(), THREADS, move |name, _| {
                let (reply, answer) = mpsc::channel();
                let _ = ask.lock().send((name.to_owned(), reply));
                let gone = Err(io::ErrorKind::TimedOut.into());
                answer.recv().unwrap_or(gone)
            });
            let resolver = Arc::new(resolver);
            Self {
                hosts: Hosts::new(Arc::clone(&resolver)),
                resolver,
                jitter_ms: 0,
                clock,
                asked,
            }
        }

        fn host(&mut self, hostname: &str) -> Arc<Host> {
            let name = DnsName {
                hostname: hostname.to_owned(),
                port: 80,
                refresh_ms: 5_000,
                jitter_ms: self.jitter_ms,
                more: Vec::new(),
            };
            self.hosts.host("cluster", &name, &[], 0, Nanos(0))
        }

        fn asked(&self) -> (String, mpsc::Sender<Answer>) {
            self.asked.recv_timeout(Duration::from_secs(10)).unwrap()
        }

        fn turn(&self, seconds: u64) {
            self.clock.advance(Duration::from_secs(seconds));
            self.resolver.wake();
        }
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// Whether `is` becomes true: threads do what they do in a time of their own.
    fn eventually(is: impl Fn() -> bool) -> bool {
        (0..10_000).any(|_| {
            is() || {
                // Real time passes: another thread has to run.
                std::thread::sleep(Duration::from_millis(1));
                false
            }
        })
    }

    #[test]
    fn a_name_is_looked_up_at_once_and_again() {
        let mut lab = Lab::new();
        let host = lab.host("a.example");
        let (name, reply) = lab.asked();
        assert_eq!(name, "a.example");
        assert!(host.awaited().is_some());
        reply.send(Ok(vec![address("10.0.0.1:80")])).unwrap();
        assert!(eventually(|| host.has(&address("10.0.0.1:80"))));
        assert!(eventually(
            || lab.resolver.counts().0 == 1 && lab.resolver.waiting() == 1
        ));
        lab.turn(4);
        assert!(lab.asked.try_recv().is_err());
        lab.turn(1);
        let (_, reply) = lab.asked();
        reply.send(Err(io::ErrorKind::NotFound.into())).unwrap();
        assert!(eventually(
            || lab.resolver.counts() == (2, 1) && lab.resolver.waiting() == 1
        ));
        assert!(host.has(&address("10.0.0.1:80")));
        lab.turn(5);
        let (_, reply) = lab.asked();
        reply.send(Ok(vec![address("10.0.0.2:80")])).unwrap();
        assert!(eventually(|| host.has(&address("10.0.0.2:80"))));
    }

    #[test]
    fn a_name_is_looked_up_later_by_no_more_than_the_jitter() {
        let mut lab = Lab::new();
        lab.jitter_ms = 5_000;
        let _host = lab.host("a.example");
        let (_, reply) = lab.asked();
        reply.send(Ok(vec![address("10.0.0.1:80")])).unwrap();
        assert!(eventually(|| lab.resolver.waiting() == 1));
        lab.turn(4);
        assert!(lab.asked.try_recv().is_err());
        lab.turn(6);
        assert_eq!(lab.asked().0, "a.example");
    }

    #[test]
    fn a_name_that_is_slow_keeps_no_other_waiting() {
        let mut lab = Lab::new();
        let slow = lab.host("slow.example");
        let (_, _reply) = lab.asked();
        let quick = lab.host("quick.example");
        let (name, reply) = lab.asked();
        assert_eq!(name, "quick.example");
        reply.send(Ok(vec![address("10.0.0.1:80")])).unwrap();
        assert!(eventually(|| quick.awaited().is_none()));
        assert!(slow.awaited().is_some());
    }

    #[test]
    fn a_host_that_is_not_used_is_not_looked_up() {
        let mut lab = Lab::new();
        let host = lab.host("a.example");
        let (_, reply) = lab.asked();
        reply.send(Ok(vec![address("10.0.0.1:80")])).unwrap();
        assert!(eventually(|| lab.resolver.waiting() == 1));
        drop(host);
        lab.turn(5);
        assert!(eventually(|| lab.resolver.waiting() == 0));
        assert!(lab.asked.try_recv().is_err());
    }
}
