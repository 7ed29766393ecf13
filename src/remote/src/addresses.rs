//! Which addresses this server connects to when somebody else named them: not those of its own network. Every address
//! that a name led to is looked at, and every address that stands in a URL.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::{config::Config, transport::TransportError};

/// What is refused unless the settings say otherwise.
const PRIVATE: &[&str] = &[
    "0.0.0.0/8",       // this network
    "10.0.0.0/8",      // private
    "100.64.0.0/10",   // carrier-grade NAT
    "127.0.0.0/8",     // loopback
    "169.254.0.0/16",  // link-local; the metadata services of clouds
    "172.16.0.0/12",   // private
    "192.0.0.0/24",    // IETF protocols
    "192.0.2.0/24",    // documentation
    "192.88.99.0/24",  // 6to4 relays
    "192.168.0.0/16",  // private
    "198.18.0.0/15",   // benchmarks
    "198.51.100.0/24", // documentation
    "203.0.113.0/24",  // documentation
    "224.0.0.0/4",     // multicast
    "240.0.0.0/4",     // reserved, broadcast
    "::/128",          // unspecified
    "::1/128",         // loopback
    "64:ff9b:1::/48",  // NAT64 of the own network
    "100::/64",        // discard
    "2001::/23",       // IETF protocols, Teredo, ORCHID, benchmarks
    "2001:db8::/32",   // documentation
    "3fff::/20",       // documentation
    "5f00::/16",       // segment routing
    "fc00::/7",        // unique local
    "fe80::/10",       // link-local
    "fec0::/10",       // site-local
    "ff00::/8",        // multicast
];

fn private_ranges() -> impl Iterator<Item = IpNet> {
    PRIVATE.iter().filter_map(|range| range.parse().ok())
}

/// Says which addresses are refused.
#[derive(Clone, Debug)]
pub struct Filter {
    deny: Vec<IpNet>,
    allow: Vec<IpNet>,
}

impl Filter {
    /// The filter of these settings.
    pub fn new(config: &Config) -> Filter {
        let deny = private_ranges().chain(config.ip_range_deny.iter().copied());
        Filter { deny: deny.collect(), allow: config.ip_range_allow.clone() }
    }

    /// Whether an address may be connected to. One that carries an IPv4 address is that address too.
    ///
    /// # Errors
    /// [`TransportError::Refused`]
    pub fn check(&self, address: IpAddr) -> Result<(), TransportError> {
        let inner = match address {
            IpAddr::V6(v6) => carried(v6).map(IpAddr::V4),
            IpAddr::V4(_) => None,
        };
        let forms = || std::iter::once(address).chain(inner);
        let among = |ranges: &[IpNet]| forms().any(|form| ranges.iter().any(|range| range.contains(&form)));
        if among(&self.deny) && !among(&self.allow) {
            return Err(TransportError::Refused(address));
        }
        Ok(())
    }
}

/// The IPv4 address that an IPv6 address leads to: v4-mapped, v4-compatible, NAT64, 6to4.
fn carried(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let parts = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match parts {
        [0, 0, 0, 0, 0, 0xffff, high, low] => Some(v4(high, low)),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => Some(v4(high, low)),
        // What some translators make of it (RFC 2765).
        [0, 0, 0, 0, 0xffff, 0, high, low] => Some(v4(high, low)),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(v4(high, low)),
        [0x2002, high, low, ..] => Some(v4(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(filter: &Filter, address: &str) -> bool {
        filter.check(address.parse().unwrap()).is_err()
    }

    #[test]
    fn all_ranges_are_ranges() {
        assert_eq!(private_ranges().count(), PRIVATE.len());
    }

    #[test]
    fn what_is_not_on_the_internet_is_refused() {
        let filter = Filter::new(&Config::default());
        let bad = "0.0.0.0 0.1.2.3 10.1.2.3 100.64.0.1 100.127.255.255 127.0.0.1 127.255.0.1 169.254.169.254 172.16.0.1 \
                   172.31.255.255 192.0.0.8 192.0.2.1 192.168.1.1 198.18.0.1 198.19.1.1 198.51.100.1 203.0.113.9 224.0.0.1 \
                   239.1.1.1 240.0.0.1 255.255.255.255 :: ::1 fe80::1 fec0::1 fc00::1 fd12:3456::1 ff02::1 2001:db8::1 \
                   3fff::1 100::1 2001:0:1::1 64:ff9b:1::1 5f00::1";
        for address in bad.split_whitespace() {
            assert!(refused(&filter, address), "{address}");
        }
    }

    #[test]
    fn addresses_that_carry_others_are_judged_by_them() {
        let filter = Filter::new(&Config::default());
        for address in ["::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::10.0.0.1", "2002:7f00:1::", "::ffff:0:192.168.0.1"]
        {
            assert!(refused(&filter, address), "{address}");
        }
        for address in ["::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1"] {
            assert!(!refused(&filter, address), "{address}");
        }
    }

    #[test]
    fn the_rest_is_not() {
        let filter = Filter::new(&Config::default());
        for address in "1.1.1.1 8.8.8.8 100.63.255.255 100.128.0.1 172.15.0.1 172.32.0.1 192.169.0.1 198.20.0.1 \
                        223.255.255.255 2606:4700::1111 2a00::1 2001:4860::8888"
            .split_whitespace()
        {
            assert!(!refused(&filter, address), "{address}");
        }
    }

    #[test]
    fn the_settings_can_allow_some() {
        let config = Config { ip_range_allow: vec!["127.0.0.1/32".parse().unwrap()], ..Config::default() };
        let filter = Filter::new(&config);
        assert!(!refused(&filter, "127.0.0.1") && !refused(&filter, "::ffff:127.0.0.1"));
        assert!(refused(&filter, "127.0.0.2") && refused(&filter, "::1"));
        let all = ["0.0.0.0/0", "::/0"].map(|range| range.parse().unwrap());
        assert!(!refused(&Filter::new(&Config { ip_range_allow: all.to_vec(), ..Config::default() }), "127.0.0.2"));
        let more = Filter::new(&Config { ip_range_deny: vec!["8.8.8.0/24".parse().unwrap()], ..Config::default() });
        assert!(refused(&more, "8.8.8.8") && refused(&more, "10.0.0.1") && !refused(&more, "8.8.4.4"));
    }
}
