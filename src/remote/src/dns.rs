//! Names to addresses: what discovery and the clients ask of DNS, and the resolver of the system.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use futures_util::future::BoxFuture;
use hickory_resolver::{
    TokioResolver, config::LookupIpStrategy, config::ResolverConfig, net::runtime::TokioRuntimeProvider,
    proto::rr::RData,
};

use crate::{addresses::Filter, transport::TransportError};

/// The most addresses and records that are looked at.
const MOST: usize = 32;

/// An SRV record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Srv {
    /// Lower ones come first.
    pub priority: u16,
    /// Among the same priority, greater ones are chosen more often.
    pub weight: u16,
    /// The host; a single dot says that there is no such service.
    pub target: String,
    /// The port.
    pub port: u16,
}

/// What is asked of DNS. Names are without the dot at the end.
pub trait Dns: Send + Sync + 'static {
    /// The addresses of a name, from the file of hosts too. None is an error.
    fn addresses<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, TransportError>>;

    /// The SRV records of a name; empty where there are none.
    fn srv<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<Srv>, TransportError>>;
}

/// The resolver that the system is configured with.
pub struct SystemDns {
    resolver: TokioResolver,
}

impl SystemDns {
    /// Reads the configuration of the system. Without one only the file of hosts is known.
    ///
    /// # Errors
    /// If the resolver cannot be made.
    pub fn new() -> Result<SystemDns, TransportError> {
        let why = |why: hickory_resolver::net::NetError| TransportError::Resolve(why.to_string());
        let mut builder = TokioResolver::builder_tokio().unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read how the system resolves names; only /etc/hosts is used");
            TokioResolver::builder_with_config(ResolverConfig::default(), TokioRuntimeProvider::default())
        });
        builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        Ok(SystemDns { resolver: builder.build().map_err(why)? })
    }
}

/// With the dot at the end, so that no search domain is tried.
fn absolute(name: &str) -> String {
    format!("{}.", name.trim_end_matches('.'))
}

impl Dns for SystemDns {
    fn addresses<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, TransportError>> {
        Box::pin(async move {
            let found = self.resolver.lookup_ip(absolute(name)).await;
            let found = found.map_err(|why| TransportError::Resolve(format!("{name}: {why}")))?;
            let addresses: Vec<_> = found.iter().take(MOST).collect();
            if addresses.is_empty() {
                return Err(TransportError::Resolve(format!("{name} has no address")));
            }
            Ok(addresses)
        })
    }

    fn srv<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<Srv>, TransportError>> {
        Box::pin(async move {
            let found = match self.resolver.srv_lookup(absolute(name)).await {
                Ok(found) => found,
                Err(why) if why.is_no_records_found() || why.is_nx_domain() => return Ok(Vec::new()),
                Err(why) => return Err(TransportError::Resolve(format!("{name}: {why}"))),
            };
            let records = found.answers().iter().filter_map(|record| match &record.data {
                RData::SRV(srv) => Some(Srv {
                    priority: srv.priority,
                    weight: srv.weight,
                    target: srv.target.to_ascii(),
                    port: srv.port,
                }),
                _ => None,
            });
            Ok(records.take(MOST).collect())
        })
    }
}

/// The addresses of a name that may be connected to.
///
/// # Errors
/// If there are none.
pub async fn allowed(dns: &dyn Dns, filter: &Filter, name: &str) -> Result<Vec<IpAddr>, TransportError> {
    let mut refused = None;
    let mut addresses = dns.addresses(name).await?;
    addresses.retain(|address| filter.check(*address).map_err(|why| refused = Some(why)).is_ok());
    match (addresses.is_empty(), refused) {
        (true, Some(why)) => Err(why),
        (true, None) => Err(TransportError::Resolve(format!("{name} has no address"))),
        (false, _) => Ok(addresses),
    }
}

/// Names for a client that connects to what stands in the URL: every address is looked at.
pub(crate) struct Plain {
    pub(crate) dns: Arc<dyn Dns>,
    pub(crate) filter: Filter,
}

impl reqwest::dns::Resolve for Plain {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let (dns, filter) = (self.dns.clone(), self.filter.clone());
        Box::pin(async move {
            let addresses = allowed(&*dns, &filter, name.as_str()).await?;
            // The port comes from the URL.
            Ok(Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0))) as reqwest::dns::Addrs)
        })
    }
}
