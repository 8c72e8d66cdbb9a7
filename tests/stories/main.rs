//! Stories over the real functions and embedded servers.

mod logs;
mod smoke;
