//! Access by the client's address (kgateway `acl`).
//!
//! The address is the client's as far as it can be trusted: the one in a PROXY header, or the one that
//! trusted proxies in front state in `x-forwarded-for`. A client without a known address is denied,
//! whatever the rules say.

mod networks;

use std::net::IpAddr;

use bytes::Bytes;
use ipnet::{IpNet, Ipv4Net};
use kgw_h1::Headers;
use serde_json::Value;

use self::networks::Networks;
use crate::bridge::Answer;
use crate::config::ir::{self, AclAction};
use crate::filter::header_mutation::is_reserved;
use crate::filter::{Decide, RequestView, Step};
use crate::pipeline::reply::Reply;

/// Under which name access logs have why a client was denied:
/// `%DYNAMIC_METADATA(dev.kgateway.http.acl:blocked-by)%`.
const NAMESPACE: &str = "dev.kgateway.http.acl";

/// Which clients may use a route.
#[derive(Debug)]
pub(crate) struct Acl {
    networks: Networks,
    rules: Box<[Rule]>,
    default_action: AclAction,
    status: u16,
    headers: Headers,
    blocked_by_header: Option<Box<[u8]>>,
}

#[derive(Debug)]
struct Rule {
    name: Option<Box<str>>,
    action: AclAction,
}

impl Acl {
    /// Compiles a list, or names the network or field that is none.
    pub(crate) fn compile(acl: &ir::Acl) -> Result<Self, String> {
        if !(200..600).contains(&acl.status) {
            return Err(format!(
                "{} is not the status of a final answer",
                acl.status
            ));
        }
        let mut networks = Vec::new();
        for (rule, index) in acl.rules.iter().zip(0_u32..) {
            for text in &rule.networks {
                let network = network(text).ok_or_else(|| format!("{text:?} is not a network"))?;
                networks.push((network, index));
            }
        }
        let mut headers = Headers::new();
        for (name, value) in &acl.headers {
            check_name(name)?;
            if !kgw_h1::is_valid_value(value.as_bytes()) {
                return Err(format!("header field {name} cannot have its value"));
            }
            headers.append(name.as_bytes(), value.as_bytes());
        }
        acl.blocked_by_header
            .as_deref()
            .map_or(Ok(()), check_name)?;
        let rules = acl.rules.iter().map(|rule| Rule {
            name: rule.name.as_deref().map(Box::from),
            action: rule.action,
        });
        Ok(Self {
            networks: Networks::new(networks),
            rules: rules.collect(),
            default_action: acl.default_action,
            status: acl.status,
            headers,
            blocked_by_header: acl
                .blocked_by_header
                .as_ref()
                .map(|name| name.as_bytes().into()),
        })
    }

    /// Why a client is denied, if it is. None is an unknown address.
    fn blocked_by(&self, client: Option<IpAddr>) -> Option<&str> {
        let Some(client) = client else {
            return Some("unknown-ip");
        };
        let rule = self.networks.find(client);
        let rule = rule.and_then(|index| self.rules.get(index as usize));
        let action = rule.map_or(self.default_action, |rule| rule.action);
        match (action, rule) {
            (AclAction::Allow, _) => None,
            (AclAction::Deny, None) => Some("default"),
            (AclAction::Deny, Some(rule)) => Some(rule.name.as_deref().unwrap_or("rule")),
        }
    }

    fn denial(&self, blocked_by: &str) -> Reply {
        let mut headers = self.headers.clone();
        // What a field cannot say is not said; access logs have it.
        if let Some(name) = &self.blocked_by_header
            && kgw_h1::is_valid_value(blocked_by.as_bytes())
        {
            headers.append(name, blocked_by.as_bytes());
        }
        Reply::denied_by_acl(Answer {
            status: self.status,
            headers,
            body: Bytes::new(),
        })
    }
}

impl Decide for Acl {
    fn on_request(&self, view: &mut RequestView<'_, '_>) -> Result<Step, Reply> {
        let client = view.exchange.client;
        let is_known = view.peers.is_remote_known || client != view.peers.remote.ip();
        let Some(blocked_by) = self.blocked_by(is_known.then_some(client)) else {
            return Ok(Step::Pass);
        };
        view.worker.stats().acl_blocked.increment();
        let why = Value::from(blocked_by);
        view.exchange.note(NAMESPACE, "blocked-by", why);
        Err(self.denial(blocked_by))
    }
}

/// Reads a network, or an address. Bits behind the prefix do not count.
fn network(text: &str) -> Option<IpNet> {
    let network = match text.parse::<IpNet>() {
        Ok(network) => network.trunc(),
        Err(_) => IpNet::from(text.parse::<IpAddr>().ok()?),
    };
    // A network inside ::ffff:0:0/96 is one of IPv4, as the addresses in it are.
    if let IpNet::V6(inner) = network
        && let Some(address) = inner.network().to_ipv4_mapped()
        && let Some(prefix) = inner.prefix_len().checked_sub(96)
    {
        return Ipv4Net::new(address, prefix).ok().map(IpNet::V4);
    }
    Some(network)
}

fn check_name(name: &str) -> Result<(), String> {
    if kgw_h1::is_valid_name(name.as_bytes()) && !is_reserved(name.as_bytes()) {
        Ok(())
    } else {
        Err(format!("an answer cannot have the header field {name:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(json: &str) -> Acl {
        Acl::compile(&serde_json::from_str(json).unwrap()).unwrap()
    }

    #[test]
    fn the_longest_prefix_decides_and_is_named() {
        let acl = acl(r#"{"default_action": "allow", "rules": [
            {"name": "host", "networks": ["10.1.2.3"], "action": "deny"},
            {"name": "site", "networks": ["10.0.0.0/8", "2001:db8::/32"], "action": "deny"},
            {"name": "lab", "networks": ["10.1.0.0/16", "2001:db8:1::/48"], "action": "allow"},
            {"networks": ["192.168.0.0/16", "::ffff:172.16.0.0/108"], "action": "deny"}
        ]}"#);
        for (client, expected) in [
            ("10.1.2.3", Some("host")),
            ("10.1.2.4", None),
            ("10.2.0.1", Some("site")),
            ("::ffff:10.2.0.1", Some("site")),
            ("11.0.0.1", None),
            ("192.168.1.1", Some("rule")),
            ("172.31.0.1", Some("rule")),
            ("172.32.0.1", None),
            ("2001:db8::1", Some("site")),
            ("2001:db8:1::1", None),
            ("2001:db9::1", None),
        ] {
            let found = acl.blocked_by(Some(client.parse().unwrap()));
            assert_eq!(found, expected, "{client}");
        }
        assert_eq!(acl.blocked_by(None), Some("unknown-ip"));
    }

    #[test]
    fn the_default_is_for_clients_of_no_network() {
        let acl = acl(r#"{"default_action": "deny", "rules": [
            {"networks": ["10.0.0.0/8"], "action": "allow"}
        ]}"#);
        let blocked = |client: &str| acl.blocked_by(Some(client.parse().unwrap()));
        assert_eq!(blocked("10.0.0.1"), None);
        assert_eq!(blocked("1.1.1.1"), Some("default"));
        assert_eq!(blocked("::1"), Some("default"));
    }

    #[test]
    fn of_the_same_network_the_last_rule_counts() {
        let acl = acl(r#"{"default_action": "allow", "rules": [
            {"name": "a", "networks": ["10.0.0.0/8", "10.0.0.1"], "action": "allow"},
            {"name": "b", "networks": ["10.0.0.0/8"], "action": "deny"}
        ]}"#);
        assert_eq!(acl.blocked_by(Some("10.2.0.1".parse().unwrap())), Some("b"));
        assert_eq!(acl.blocked_by(Some("10.0.0.1".parse().unwrap())), None);
    }

    #[test]
    fn a_denial_is_as_configured() {
        let acl = acl(r#"{"default_action": "deny", "status": 451,
            "headers": [["Retry-After", "60"]], "blocked_by_header": "x-why"}"#);
        let reply = acl.denial("default");
        assert_eq!((reply.status, reply.body_bytes()), (451, &b""[..]));
        let crate::pipeline::reply::Extra::Answer(answer) = &reply.extra else {
            panic!("{reply:?}");
        };
        let fields: Vec<_> = answer.headers.iter().collect();
        let expected: [(&[u8], &[u8]); 2] = [(b"Retry-After", b"60"), (b"x-why", b"default")];
        assert_eq!(fields, expected);
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        for (json, problem) in [
            (
                r#"{"rules": [{"networks": ["10.0.0.0/33"], "action": "deny"}]"#,
                "10.0.0.0/33",
            ),
            (
                r#"{"rules": [{"networks": ["a"], "action": "deny"}]"#,
                "\"a\"",
            ),
            (r#"{"status": 199"#, "199"),
            (r#"{"headers": [["content-length", "1"]]"#, "content-length"),
            (r#"{"headers": [["x-a", "1\r\n"]]"#, "x-a"),
            (r#"{"blocked_by_header": "a b""#, "a b"),
        ] {
            let parsed = serde_json::from_str(&format!(r#"{json}, "default_action": "deny"}}"#));
            let error = Acl::compile(&parsed.unwrap()).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
    }
}
