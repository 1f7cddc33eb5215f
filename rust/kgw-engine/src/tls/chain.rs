//! Who serves which server name.

use std::sync::Arc;

use super::Server;
use super::hello::{alert, refuse};
use super::names::normalized;
use crate::config::snapshot::{FastMap, Routes, TcpForward};
use crate::conn::io::Stream;

/// The chains of a listener, by server name.
#[derive(Debug, Default)]
pub(crate) struct Chains {
    all: Vec<Arc<Chain>>,
    /// By the whole name.
    exact: FastMap<Box<str>, usize>,
    /// By what follows the `*.`.
    wildcards: FastMap<Box<str>, usize>,
    /// For any name, and for none.
    any: Option<usize>,
}

/// What serves the connections for some server names.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) name: Arc<str>,
    pub(crate) action: Action,
}

/// What is done with a TLS connection. A server that is none is one whose configuration is broken.
#[derive(Debug)]
pub(crate) enum Action {
    /// The TLS bytes are passed on as they are.
    Passthrough(Arc<TcpForward>),
    /// TLS ends here, and requests are routed.
    Http {
        tls: Option<Arc<Server>>,
        routes: Arc<Routes>,
    },
    /// TLS ends here, and the bytes inside are passed on.
    Tcp {
        tls: Option<Arc<Server>>,
        forward: Arc<TcpForward>,
    },
}

impl Chains {
    /// Adds a chain. Returns the names that earlier chains have already and keep.
    pub(crate) fn add<'n>(&mut self, chain: Chain, server_names: &'n [String]) -> Vec<&'n str> {
        let index = self.all.len();
        self.all.push(Arc::new(chain));
        let mut taken = Vec::new();
        for server_name in server_names {
            let name = normalized(server_name);
            let is_new = if name == "*" {
                self.any.get_or_insert(index) == &index
            } else if let Some(parent) = name.strip_prefix("*.") {
                *self.wildcards.entry(Box::from(parent)).or_insert(index) == index
            } else {
                *self.exact.entry(name.into_boxed_str()).or_insert(index) == index
            };
            if !is_new {
                taken.push(server_name.as_str());
            }
        }
        taken
    }

    /// The chain for a server name, which is in lower case: that of the name itself, else that of the
    /// longest wildcard, else that for any.
    pub(crate) fn select(&self, server_name: Option<&str>) -> Option<&Arc<Chain>> {
        let by_name = server_name.and_then(|name| {
            self.exact.get(name).or_else(|| {
                let dots = name.match_indices('.');
                dots.map(|(at, _)| &name[at + 1..])
                    .find_map(|parent| self.wildcards.get(parent))
            })
        });
        by_name.or(self.any.as_ref()).map(|&at| &self.all[at])
    }
}

/// Ends the connection of a client whose server name is unknown, without a word: Envoy does so too,
/// and for the Gateway API's conformance tests an alert is no refusal.
pub(crate) async fn refuse_unknown(stream: &mut Stream) {
    refuse(stream, &[]).await;
}

/// Tells a client that its server name is served by nothing that works and ends the connection.
pub(crate) async fn refuse_broken(stream: &mut Stream) {
    const INTERNAL_ERROR: u8 = 80;
    refuse(stream, &alert(INTERNAL_ERROR)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(name: &str) -> Chain {
        Chain {
            name: Arc::from(name),
            action: Action::Passthrough(Arc::new(TcpForward {
                name: String::new(),
                backends: Box::default(),
                total_weight: 0,
                idle_timeout_ms: 0,
            })),
        }
    }

    fn chains(all: &[(&str, &[&str])]) -> Chains {
        let mut chains = Chains::default();
        for (name, server_names) in all {
            let server_names: Vec<_> = server_names.iter().map(ToString::to_string).collect();
            chains.add(chain(name), &server_names);
        }
        chains
    }

    #[test]
    fn the_most_specific_name_wins() {
        let chains = chains(&[
            ("any", &["*"]),
            ("wild", &["*.example"]),
            ("deep", &["*.b.example"]),
            ("exact", &["a.example", "C.Example."]),
        ]);
        let select = |name| chains.select(name).map(|chain| &*chain.name);
        for (name, chosen) in [
            (Some("a.example"), "exact"),
            (Some("c.example"), "exact"),
            (Some("x.example"), "wild"),
            (Some("x.y.example"), "wild"),
            (Some("b.example"), "wild"),
            (Some("x.b.example"), "deep"),
            (Some("x.y.b.example"), "deep"),
            (Some("example"), "any"),
            (Some("other"), "any"),
            (None, "any"),
        ] {
            assert_eq!(select(name), Some(chosen), "{name:?}");
        }
    }

    #[test]
    fn nobody_serves_a_name_that_no_chain_has() {
        let chains = chains(&[("one", &["a.example", "*.b.example"])]);
        for name in [None, Some("b.example"), Some("aa.example"), Some("")] {
            assert!(chains.select(name).is_none(), "{name:?}");
        }
    }

    #[test]
    fn a_name_stays_with_its_first_chain() {
        let mut chains = chains(&[("first", &["a.example", "*.example", "*"])]);
        let names = ["A.example", "*.example", "*", "b.example"].map(str::to_owned);
        let taken = chains.add(chain("second"), &names);
        assert_eq!(taken, ["A.example", "*.example", "*"]);
        assert_eq!(&*chains.select(Some("a.example")).unwrap().name, "first");
        assert_eq!(&*chains.select(Some("b.example")).unwrap().name, "second");
    }
}
