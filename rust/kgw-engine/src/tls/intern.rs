//! Keeping what is compiled across configurations.
//!
//! A configuration that did not change keeps its keys for session tickets, its sessions and its pooled
//! connections, and costs a hash instead of an RSA key check.

use std::sync::{Arc, Weak};

use hashbrown::HashMap;
use ring::digest;
use serde::Serialize;

use super::server::Inside;
use super::{Client, ConfigError, Server};
use crate::config::ir::{ClientTls, ServerTls, UpstreamProtocol};

/// SHA-256 of the configuration.
type Key = [u8; 32];

/// Both sides by their configurations, as long as a snapshot uses them.
#[derive(Debug, Default)]
pub(crate) struct Interned {
    servers: HashMap<Key, Weak<Server>>,
    clients: HashMap<Key, Weak<Client>>,
}

impl Interned {
    pub(crate) fn server(
        &mut self,
        tls: &ServerTls,
        inside: Inside,
    ) -> Result<Arc<Server>, ConfigError> {
        let key = key(&(tls, inside))?;
        intern(&mut self.servers, key, || Server::compile(tls, inside))
    }

    pub(crate) fn client(
        &mut self,
        tls: &ClientTls,
        protocol: UpstreamProtocol,
    ) -> Result<Arc<Client>, ConfigError> {
        let key = key(&(tls, protocol))?;
        intern(&mut self.clients, key, || Client::compile(tls, protocol))
    }

    /// Forgets what no snapshot uses.
    pub(crate) fn forget_unused(&mut self) {
        self.servers.retain(|_, server| server.strong_count() > 0);
        self.clients.retain(|_, client| client.strong_count() > 0);
    }
}

fn key(content: &impl Serialize) -> Result<Key, ConfigError> {
    let json = serde_json::to_vec(content).map_err(|_| ConfigError::new("not serializable"))?;
    let digest = digest::digest(&digest::SHA256, &json);
    let mut key = Key::default();
    key.copy_from_slice(digest.as_ref());
    Ok(key)
}

fn intern<T>(
    known: &mut HashMap<Key, Weak<T>>,
    key: Key,
    compile: impl FnOnce() -> Result<T, ConfigError>,
) -> Result<Arc<T>, ConfigError> {
    if let Some(known) = known.get(&key).and_then(Weak::upgrade) {
        return Ok(known);
    }
    let compiled = Arc::new(compile()?);
    known.insert(key, Arc::downgrade(&compiled));
    Ok(compiled)
}
