//! Stories over the real functions and embedded servers.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a story that cannot go on has failed")]

mod answers;
mod authentication;
mod brief;
mod calls;
mod commands;
mod console;
mod cost;
mod deadline;
mod deployed;
mod erasure;
mod events;
mod examples;
mod export;
mod faults;
mod lambda;
mod load;
mod local_run;
mod logs;
mod odd_values;
mod order;
mod process;
mod profiles;
mod profiles_command;
mod reconciler;
mod recordings;
mod scaling;
mod secrets;
mod security;
mod simulation;
mod snapshots;
mod template;
mod units;
mod way_back;
