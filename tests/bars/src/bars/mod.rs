//! The bars, a file each.

mod b01;
mod b02;
mod b03;
mod b04;
mod b05;
mod b06;
mod b07;
mod b08;
mod b09;
mod b10;
mod b11;
mod b12;
mod b13;
mod b17;
mod b20;
mod b21;
mod b22;
mod b23;
mod b24;
mod b25;

use std::pin::Pin;

use crate::{Outcome, Plan, report::Report};

/// What runs while a bar is taken.
pub type Run<'a> = Pin<Box<dyn Future<Output = Outcome<()>> + 'a>>;

/// A bar: what the daemon is held to, and how that is measured.
#[derive(Debug)]
pub struct Bar {
    pub name: &'static str,
    /// One line about what it is.
    pub about: &'static str,
    /// Puts its figures into the report. What it finds until something is in its way is kept.
    pub run: for<'a> fn(&'a Plan, &'a mut Report) -> Run<'a>,
}

/// Every bar, in the order in which they are taken.
pub const ALL: &[Bar] = &[
    b04::BAR,
    b01::BAR,
    b02::BAR,
    b03::BAR,
    b05::BAR,
    b06::BAR,
    b07::BAR,
    b08::BAR,
    b09::BAR,
    b10::BAR,
    b11::BAR,
    b12::BAR,
    b13::BAR,
    b17::BAR,
    b20::BAR,
    b21::BAR,
    b22::BAR,
    b23::BAR,
    b24::BAR,
    b25::BAR,
];
