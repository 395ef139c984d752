//! From the admin API's model to text. Pure: what a command prints can be tested as a string.

pub(crate) mod certs;
pub(crate) mod check;
pub(crate) mod flow;
pub(crate) mod hint;
pub(crate) mod mesh;
pub(crate) mod policy;
mod request;
pub(crate) mod routes;
pub(crate) mod status;
mod style;
mod table;
mod units;
pub(crate) mod why;

pub(crate) use style::Style;
pub(crate) use table::Table;
pub(crate) use units::{ago, bytes, clean, milliseconds, plural, remaining};
