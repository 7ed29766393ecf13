//! Where a server is (Server-Server API, "Resolving server names"): from its name to a URL, a `Host` header and addresses.
//!
//! The URL always holds the name that the certificate must be for. Where the specification lets DNS choose the port, the
//! URL has none and [`addresses`] is asked when a connection is made.

use std::net::{IpAddr, SocketAddr};

use stoa_event::ids::ServerName;
use stoa_store::Env;

use crate::{
    addresses::Filter,
    dns::{Dns, Srv, allowed},
    transport::TransportError,
    well_known::WellKnown,
};

/// The port of federation.
pub const PORT: u16 = 8448;

/// The most targets of SRV records that are looked at.
const MOST_TARGETS: usize = 8;

/// How a server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// Host and port are known. `host` is the `Host` header where it is not what the URL has.
    Direct {
        /// Host and port of the URL.
        authority: String,
        /// The `Host` header, if it differs.
        host: Option<String>,
    },
    /// The host is known; DNS says where and on which port.
    Lookup {
        /// The host of the URL.
        host: String,
    },
}

/// Finds out how a server is reached. The numbers are the steps of the specification.
pub async fn route(name: &ServerName, well_known: &WellKnown) -> Route {
    // 1 and 2.
    if let Some(direct) = direct(name) {
        return direct;
    }
    // 3.
    match well_known.delegated(name.host()).await {
        // 3.1 and 3.2; 3.3 to 3.5.
        Some(delegated) => direct(&delegated).unwrap_or_else(|| lookup(&delegated)),
        // 4 to 6.
        None => lookup(name),
    }
}

/// The route of a name with an address or a port; there is nothing to find out.
fn direct(name: &ServerName) -> Option<Route> {
    match (name.is_ip_literal(), name.port()) {
        (true, None) => Some(Route::Direct { authority: format!("{name}:{PORT}"), host: Some(name.to_string()) }),
        // URLs leave out 443, the specification does not.
        (_, Some(443)) => Some(Route::Direct { authority: name.to_string(), host: Some(name.to_string()) }),
        (_, Some(_)) => Some(Route::Direct { authority: name.to_string(), host: None }),
        (false, None) => None,
    }
}

fn lookup(name: &ServerName) -> Route {
    Route::Lookup { host: name.host().to_owned() }
}

/// Addresses and ports of a host by SRV records, else its own addresses with port 8448 (steps 3.3 to 3.5 and 4 to 6).
///
/// # Errors
/// If there are none that may be connected to.
pub async fn addresses(
    dns: &dyn Dns,
    filter: &Filter,
    env: &Env,
    host: &str,
) -> Result<Vec<SocketAddr>, TransportError> {
    for service in ["_matrix-fed._tcp", "_matrix._tcp"] {
        // A question that failed is taken as one that found nothing: there are resolvers that do not know SRV.
        let records = dns.srv(&format!("{service}.{host}")).await.unwrap_or_else(|why| {
            tracing::debug!(%host, %why, "cannot look for SRV records");
            Vec::new()
        });
        match records.as_slice() {
            [] => continue,
            [only] if only.target.trim_end_matches('.').is_empty() => {
                return Err(TransportError::Resolve(format!("{host} says that it has no homeserver")));
            }
            _ => return targets(dns, filter, in_order(records, env)).await,
        }
    }
    let found = allowed(dns, filter, host).await?;
    Ok(found.into_iter().map(|address| SocketAddr::new(address, PORT)).collect())
}

/// The addresses of the targets, the first target's first.
async fn targets(dns: &dyn Dns, filter: &Filter, records: Vec<Srv>) -> Result<Vec<SocketAddr>, TransportError> {
    let mut found = Vec::new();
    let mut failed = None;
    for srv in records.into_iter().take(MOST_TARGETS) {
        let target = srv.target.trim_end_matches('.');
        let addresses = match target.parse::<IpAddr>() {
            // No name, but it is seen; what the filter says of addresses holds for it too.
            Ok(address) => filter.check(address).map(|()| vec![address]),
            Err(_) => allowed(dns, filter, target).await,
        };
        match addresses {
            Ok(addresses) => found.extend(addresses.into_iter().map(|address| SocketAddr::new(address, srv.port))),
            Err(why) => failed = Some(why),
        }
    }
    match failed {
        Some(why) if found.is_empty() => Err(why),
        _ => Ok(found),
    }
}

/// By priority, and by chance and weight among the same (RFC 2782).
fn in_order(mut records: Vec<Srv>, env: &Env) -> Vec<Srv> {
    // Those without weight first, as the RFC has it, so that chance can still find them.
    records.sort_by_key(|srv| (srv.priority, srv.weight));
    let mut ordered = Vec::with_capacity(records.len());
    while let Some(priority) = records.first().map(|srv| srv.priority) {
        let same = records.iter().take_while(|srv| srv.priority == priority);
        let sum: u32 = same.map(|srv| u32::from(srv.weight)).sum();
        let mut raw = [0; 4];
        env.random.fill(&mut raw);
        let mut left = u32::from_be_bytes(raw) % (sum + 1);
        let chosen = records.iter().position(|srv| {
            let weight = u32::from(srv.weight);
            let here = left <= weight;
            left = left.saturating_sub(weight);
            here
        });
        ordered.push(records.remove(chosen.unwrap_or(0)));
    }
    ordered
}
