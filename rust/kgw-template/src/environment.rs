//! What all templates have: functions, bounds, and how values are written.

use std::sync::OnceLock;

use minijinja::{AutoEscape, Environment};

use crate::{functions, print};

/// How much one render may take: an instruction of the template is one unit, and so are 64 bytes
/// that it makes or reads. About 0.1 s of a processor at worst, and no more than 32 MB of output.
pub const FUEL: u64 = 500_000;

/// How much a render of a template may take that [can build deep values](crate::Template): a level
/// of lists takes at least a unit.
pub(crate) const FUEL_OF_DEEP: u64 = 100_000;

/// The stack that such a render gets, on a thread of its own. Bytes, of which what is not used is
/// not there. Values of 100,000 levels are taken apart with less than 1 KiB for a level.
pub(crate) const STACK_OF_DEEP: usize = 128 << 20;

/// Returns an environment for one template. Nothing is shared with others but the functions.
pub(crate) fn environment() -> Environment<'static> {
    static BASE: OnceLock<Environment<'static>> = OnceLock::new();
    BASE.get_or_init(base).clone()
}

fn base() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL));
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_formatter(print::print);
    functions::add_to(&mut environment);
    environment
}
