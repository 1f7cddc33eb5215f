//! An engine and nothing else: `cargo run -p kgw-engine --example serve CONFIG`.
//!
//! Reads a configuration (IR as JSON) from a file, serves it with one worker, prints the bound addresses
//! by listener as one line of JSON, and ends when its standard input does. `benches/instructions` runs it
//! under callgrind: there is no interpreter in it, and one thread does all the work that is counted.

use std::error::Error;
use std::io::{Read, Write, stdin, stdout};
use std::time::Duration;
use std::{env, fs};

use kgw_engine::runtime::{Engine, Options};

/// Enough for an emulated processor.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> Result<(), Box<dyn Error>> {
    let path = env::args_os().nth(1).ok_or("usage: serve CONFIG")?;
    let engine = Engine::new(&Options {
        workers: Some(1),
        ..Options::default()
    });
    engine.start(&fs::read(path)?)?;
    if !engine.wait_applied(1, PATIENCE)? {
        return Err("the worker does not start".into());
    }
    let addresses = serde_json::to_string(&engine.addresses()?)?;
    writeln!(stdout(), "{addresses}")?;
    stdin().read_to_end(&mut Vec::new())?;
    engine.drain(Duration::ZERO)?;
    engine.join(PATIENCE);
    Ok(())
}
