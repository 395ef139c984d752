//! Which endpoint of a service, under the DestinationRule that is in force: pure, time and chance are arguments.
//!
//! ```text
//!   Traffic, client, port, subset --effective--> Effective          once per version
//!   Mesh, service, client, Effective --Group::new--> Group          once per version: levels by locality, weights, hash tables
//!   Group + Ask + Health --pick--> Endpoint                         per try
//!     Health: who is out (Detector), who has how much to do, who is new (Ages)
//!   Circuit --take--> Slot                                          per connection, request, retry
//! ```

mod ages;
mod circuit;
mod group;
mod hash;
mod key;
mod locality;
mod outlier;
mod pick;
mod policy;
#[cfg(test)]
mod tests;

pub use ages::Ages;
pub use circuit::{Circuit, Kind, Overflow, Slot};
pub use group::{Endpoint, Group};
pub use key::{HashInput, hash_input, hash_of_connection};
pub use outlier::{Cause, Detector, Signal};
pub use pick::{Ask, Health, NoneLeft};
pub use policy::{Effective, NoSuchSubset, RetryBudget, effective, in_force};
