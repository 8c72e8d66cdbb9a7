//! Stories over the real functions and embedded servers.

mod answers;
mod authentication;
mod faults;
mod logs;
mod order;
mod process;
mod smoke;
mod units;
