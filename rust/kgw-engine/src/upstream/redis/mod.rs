//! Asking a Redis or Valkey server to decide: token buckets that several proxies share, without a service.
//!
//! Each worker has one connection to a server, on which commands are pipelined ([`connection`]); each
//! decision is one run of one script ([`script`]). RESP2 is small, and the connection is one of the engine's
//! own: its names, its TLS, its clock and its shutting down. A client library has its own of each.
//!
//! A server that fails is left alone for a while, which grows while it goes on failing, and meanwhile nobody
//! waits for it: what is asked fails at once. Then one connection tries it; what is asked waits for that
//! only if the server had not failed before.
//!
//! The server is one endpoint, since counts must be in one place: of a cluster that has several, all
//! proxies take the same.

mod connection;
pub(crate) mod resp;
pub(crate) mod script;

use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use hashbrown::HashMap;

use self::connection::{Connection, Ended, Refused};
use self::script::{Taken, Wanted};
use crate::clock::Nanos;
use crate::config::snapshot::Cluster;
use crate::runtime::Worker;
use crate::upstream::pool::PoolKey;

/// How long a server that failed once is left alone. Milliseconds; it doubles with each failure.
const FIRST_BACK_OFF_MS: u64 = 50;

/// How long at most. Milliseconds.
const MAX_BACK_OFF_MS: u64 = 5_000;

/// Servers that a worker remembers the failures of.
const MAX_SERVERS: usize = 64;

/// A server, and how to log in to it.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) login: Arc<Login>,
}

/// What a connection begins with.
#[derive(Clone, Default, Eq, Hash, PartialEq)]
pub(crate) struct Login {
    /// None is the server's default user.
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
    /// The number of a database.
    pub(crate) database: u32,
}

/// Why there is no decision.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum RedisError {
    /// There is no address to connect to.
    NoEndpoint,
    /// The server has failed a moment ago, or does so now.
    Down,
    /// As many as may be wait for it already.
    Busy,
    /// It answered something else than the script does: it is no master, or has no room.
    Refused,
}

/// The servers of a worker.
#[derive(Debug, Default)]
pub(crate) struct Servers(HashMap<Key, Place>);

type Key = (PoolKey, Arc<Login>);

/// What is known of a server.
#[derive(Debug)]
struct Place {
    connection: Option<Rc<Connection>>,
    /// How often it has failed since it answered something.
    failures: u32,
    /// Until when it is left alone.
    until: Nanos,
}

// === impl Server ===

impl Server {
    /// The address that is connected to.
    fn endpoint(&self) -> Option<SocketAddr> {
        let endpoints = self.cluster.endpoints();
        endpoints.iter().map(|one| one.address).min()
    }

    /// Takes tokens from all of the buckets, or from none. Whoever calls it says how long that may take, and
    /// drops it then; tokens may be taken nevertheless.
    ///
    /// # Errors
    /// [`RedisError`]: it is not known whether they were.
    pub(crate) async fn take(
        &self,
        worker: &Rc<Worker>,
        wanted: &[Wanted],
    ) -> Result<Taken, RedisError> {
        if let Some(told) = self.cluster.awaited() {
            told.await;
        }
        let mut command = script::command(wanted, false);
        let mut is_again = false;
        let mut is_whole = false;
        loop {
            let (connection, is_new) = self.connection(worker)?;
            let answer = connection.ask(&command, worker.clock().now());
            let answer = answer.map_err(|refused| match refused {
                Refused::Ended => RedisError::Down,
                Refused::Full => RedisError::Busy,
            })?;
            match answer.await {
                Ok(reply) if script::is_unknown(&reply) && !is_whole => {
                    command = script::command(wanted, true);
                    is_whole = true;
                }
                Ok(reply) => {
                    return script::taken(&reply, wanted.len()).ok_or(RedisError::Refused);
                }
                // The server may have closed the connection for being idle as the command came. If it was
                // obeyed, tokens are taken twice, which is on the safe side.
                Err(_) if !is_new && !is_again => is_again = true,
                Err(_) => return Err(RedisError::Down),
            }
        }
    }

    /// A connection, which may still be being opened, and whether it is a new one.
    fn connection(&self, worker: &Rc<Worker>) -> Result<(Rc<Connection>, bool), RedisError> {
        let endpoint = self.endpoint().ok_or(RedisError::NoEndpoint)?;
        let key = (self.cluster.pool_key(endpoint), Arc::clone(&self.login));
        let now = worker.clock().now();
        let mut servers = worker.redis.borrow_mut();
        servers.forget(now);
        let place = servers.0.entry(key.clone()).or_insert(Place {
            connection: None,
            failures: 0,
            until: Nanos(0),
        });
        if let Some(connection) = &place.connection {
            return if place.failures == 0 || connection.is_proven() {
                Ok((Rc::clone(connection), false))
            } else {
                Err(RedisError::Down)
            };
        }
        if now < place.until {
            return Err(RedisError::Down);
        }
        let connection = Rc::new(Connection::default());
        place.connection = Some(Rc::clone(&connection));
        let failed_before = place.failures > 0;
        tokio::task::spawn_local(drive(
            Rc::clone(worker),
            self.clone(),
            key,
            Rc::clone(&connection),
        ));
        if failed_before {
            return Err(RedisError::Down);
        }
        Ok((connection, true))
    }
}

/// Serves a connection, and notes how it ended.
async fn drive(worker: Rc<Worker>, server: Server, key: Key, connection: Rc<Connection>) {
    let answered = || {
        if let Some(place) = worker.redis.borrow_mut().0.get_mut(&key) {
            place.failures = 0;
        }
    };
    let ended = connection::run(Rc::clone(&worker), &server, &connection, answered).await;
    let now = worker.clock().now();
    if ended == Ended::Failed {
        worker.stats().redis_failed.increment();
    }
    if let Some(place) = worker.redis.borrow_mut().0.get_mut(&key) {
        place.ended(ended, now);
    }
}

impl Servers {
    /// Forgets servers that are no longer asked, once there are many.
    fn forget(&mut self, now: Nanos) {
        if self.0.len() > MAX_SERVERS {
            self.0
                .retain(|_, place| place.connection.is_some() || now < place.until);
        }
    }
}

impl Place {
    fn ended(&mut self, ended: Ended, now: Nanos) {
        self.connection = None;
        if ended == Ended::Failed {
            self.until = now.after_ms(back_off_ms(self.failures));
            self.failures = self.failures.saturating_add(1);
        }
    }
}

/// How long a server is left alone that had failed so often before. Milliseconds: half of it by chance, so
/// that not all workers of all proxies come back at once.
fn back_off_ms(failures: u32) -> u64 {
    let most = FIRST_BACK_OFF_MS
        .saturating_mul(1 << failures.min(16))
        .min(MAX_BACK_OFF_MS);
    most / 2 + fastrand::u64(0..=most / 2)
}

impl fmt::Debug for Login {
    /// Without the password.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("Login");
        shown.field("username", &self.username);
        shown.field("database", &self.database);
        shown.finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_goes_on_failing_is_left_alone_for_longer() {
        for (failures, most) in [(0, 50), (1, 100), (5, 1_600), (7, 5_000), (u32::MAX, 5_000)] {
            let wait = back_off_ms(failures);
            assert!((most / 2..=most).contains(&wait), "{failures}: {wait}");
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        let login = Login {
            username: Some("kgw".to_owned()),
            password: Some("s3cret".to_owned()),
            database: 2,
        };
        let shown = format!("{login:?}");
        assert!(
            shown.contains("kgw") && !shown.contains("s3cret"),
            "{shown}"
        );
    }
}
