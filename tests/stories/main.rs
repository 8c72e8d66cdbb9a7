//! Stories over the real functions and embedded servers.

mod answers;
mod authentication;
mod erasure;
mod examples;
mod faults;
mod lambda;
mod logs;
mod odd_values;
mod order;
mod process;
mod units;
