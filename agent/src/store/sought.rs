//! What an agent that does not hold the whole mesh asks about.

use std::fmt;
use std::net::IpAddr;
use warren_common::model::ServiceName;

/// Something that the controller can be asked about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Sought {
    /// Who has this address, in its canonical form: a pod dials it.
    Address(IpAddr),
    /// The service of this name: rules lead there.
    Service(ServiceName),
}

impl From<IpAddr> for Sought {
    fn from(address: IpAddr) -> Self {
        Self::Address(address.to_canonical())
    }
}

impl From<ServiceName> for Sought {
    fn from(name: ServiceName) -> Self {
        Self::Service(name)
    }
}

impl fmt::Display for Sought {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Service(name) => write!(f, "the service {name}"),
        }
    }
}
