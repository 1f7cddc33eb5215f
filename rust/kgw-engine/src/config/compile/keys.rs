//! Keys of servers by where they come from.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::config::ir;
use crate::config::snapshot::{Cluster, KeyServer};
use crate::filter::jwt::remote::RemoteKeys;

/// Keys that were fetched stay when a configuration is loaded anew, for all providers that have the same
/// server and the same settings.
#[derive(Debug, Default)]
pub(super) struct KeySources {
    known: HashMap<ir::RemoteKeys, Arc<RemoteKeys>>,
}

impl KeySources {
    pub(super) fn keys(&mut self, settings: &ir::RemoteKeys) -> Arc<RemoteKeys> {
        if let Some(keys) = self.known.get(settings) {
            return Arc::clone(keys);
        }
        let keys = Arc::new(RemoteKeys::new(settings.clone()));
        self.known.insert(settings.clone(), Arc::clone(&keys));
        keys
    }

    /// The keys that are fetched in the background, with the clusters of their servers.
    pub(super) fn in_background(
        &self,
        cluster: impl Fn(&str) -> Option<Arc<Cluster>>,
    ) -> Box<[KeyServer]> {
        let used = self
            .known
            .iter()
            .filter(|(settings, keys)| settings.in_background && Arc::strong_count(keys) > 1);
        let servers = used.filter_map(|(settings, keys)| {
            Some(KeyServer {
                cluster: cluster(settings.cluster.as_deref()?)?,
                keys: Arc::downgrade(keys),
            })
        });
        servers.collect()
    }

    /// Forgets what no policy has any more.
    pub(super) fn forget_unused(&mut self) {
        self.known.retain(|_, keys| Arc::strong_count(keys) > 1);
    }
}
