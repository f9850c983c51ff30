//! The binary from outside: what it prints, and how it ends.

#![cfg(test)]

mod audit;
mod bulk;
mod config;
mod doctor;
mod failures;
mod hsm;
mod info;
mod keys;
mod load;
mod manual;
mod pin;
mod probe;
mod profiles;
mod report;
mod sim;
mod tune;
