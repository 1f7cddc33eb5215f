//! One template.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::thread;

use minijinja::Environment;
use minijinja::machinery::{CompiledTemplate, Instruction, get_compiled_template};
use minijinja::value::Value;

use crate::context::Context;
use crate::environment::{FUEL_OF_DEEP, STACK_OF_DEEP, environment};
use crate::error::{RenderError, TemplateError};
use crate::functions;

/// A template, compiled.
pub struct Template {
    text: Text,
    /// The functions that it calls.
    called: Arc<[&'static str]>,
    /// The variables of a JSON body that it uses, in order.
    variables: Vec<String>,
}

enum Text {
    /// There is nothing to do in it.
    Plain(String),
    /// A template of this environment, by [`NAME`].
    Template(Box<Environment<'static>>),
    /// One that can build values of many levels.
    Deep(Box<Environment<'static>>),
}

/// The name of the one template of an environment.
const NAME: &str = "template";

/// The longest text that is compiled. Bytes.
const LONGEST: usize = 256 << 10;

/// Lists and maps that a template may put into one another where each is made once.
const LEVELS: usize = 500;

/// Of [`Instruction::PushLoop`]: the loop can be called in itself.
const RECURSIVE: u8 = 2;

// === impl Template ===

impl Template {
    /// Compiles a text.
    ///
    /// # Errors
    /// It is no template, or it calls functions, filters or tests that do not exist.
    pub fn compile(text: &str) -> Result<Self, TemplateError> {
        if text.len() > LONGEST {
            return Err(TemplateError {
                line: 1,
                message: format!("the template is longer than {LONGEST} bytes"),
            });
        }
        let mut environment = environment();
        environment
            .add_template_owned(NAME, text.to_owned())
            .map_err(|error| TemplateError::of(&error))?;
        let template = environment
            .get_template(NAME)
            .map_err(|error| TemplateError::of(&error))?;
        let free = template.undeclared_variables(false);
        let compiled = get_compiled_template(&template);
        let called = check(&environment, compiled, &free)?;
        let is_deep = is_deep(compiled);
        let mut variables: Vec<_> = free
            .into_iter()
            .filter(|name| !functions::NAMES.contains(&name.as_str()))
            .collect();
        variables.sort_unstable();
        let is_plain = !["{{", "{%", "{#"].iter().any(|begin| text.contains(begin));
        let text = if is_plain {
            Text::Plain(without_last_line_end(text).to_owned())
        } else if is_deep {
            environment.set_fuel(Some(FUEL_OF_DEEP));
            Text::Deep(Box::new(environment))
        } else {
            Text::Template(Box::new(environment))
        };
        Ok(Self {
            text,
            called: called.into(),
            variables,
        })
    }

    /// Whether it is a text that is the same for all messages.
    pub fn is_plain(&self) -> bool {
        matches!(self.text, Text::Plain(_))
    }

    /// Whether it asks for dynamic metadata.
    pub fn reads_metadata(&self) -> bool {
        self.called.contains(&"dynamic_metadata")
    }

    /// Whether it asks for the body of the message, with `body()` or `context()`.
    pub fn reads_body(&self) -> bool {
        ["body", "context"]
            .iter()
            .any(|name| self.called.contains(name))
    }

    /// The names of the variables that it uses: members of a JSON body.
    pub fn variables(&self) -> &[String] {
        &self.variables
    }

    /// Returns what it makes of a message.
    ///
    /// # Errors
    /// Nothing was made; see [`RenderError`].
    pub fn render(&self, context: &Context) -> Result<Cow<'_, str>, RenderError> {
        let environment = match &self.text {
            Text::Plain(text) => return Ok(Cow::Borrowed(text)),
            Text::Template(environment) | Text::Deep(environment) => environment,
        };
        if !self.variables.is_empty() && !context.has_variables() {
            return Err(RenderError::UndeclaredVariables);
        }
        let render = || {
            let root = Value::from_object(context.root(&self.called));
            let template = environment.get_template(NAME)?;
            template.render(root)
        };
        let rendered = match &self.text {
            Text::Deep(_) => with_deep_stack(render)?,
            _ => render(),
        };
        rendered
            .map(Cow::Owned)
            .map_err(|error| RenderError::of(&error))
    }
}

/// Renders on a thread of its own, for its stack. All that is built is gone again when it ends.
fn with_deep_stack<T: Send>(render: impl FnOnce() -> T + Send) -> Result<T, RenderError> {
    let failed = RenderError::Failed {
        line: 1,
        reason: "there is no thread for it",
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(STACK_OF_DEEP);
        let rendering = thread.spawn_scoped(scope, render).ok()?;
        rendering.join().ok()
    })
    .ok_or(failed)
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Template")
            .field("called", &self.called)
            .field("variables", &self.variables)
            .finish_non_exhaustive()
    }
}

/// The instructions of a template.
fn instructions<'a, 'source>(
    compiled: &'a CompiledTemplate<'source>,
) -> impl Iterator<Item = (u32, &'a Instruction<'source>)> {
    (0..).map_while(|at| Some((at, compiled.instructions.get(at)?)))
}

/// Returns whether a template can build values of so many levels that comparing, writing or dropping them
/// takes more stack than there is: such things call themselves for each level. That takes an assignment to
/// a member in a loop, a loop or a macro that calls itself, or a text that goes on and on.
fn is_deep(compiled: &CompiledTemplate<'_>) -> bool {
    let mut levels = 0;
    for (_, instruction) in instructions(compiled) {
        match instruction {
            Instruction::SetAttr(_) | Instruction::BuildMacro(..) => return true,
            Instruction::PushLoop(flags) if flags & RECURSIVE != 0 => return true,
            Instruction::BuildList(_)
            | Instruction::BuildTuple(_)
            | Instruction::BuildMap(_)
            | Instruction::BuildKwargs(_)
            | Instruction::Slice
            | Instruction::Mul
            | Instruction::ApplyFilter(..)
            | Instruction::CallFunction(..) => levels += 1,
            _ => {}
        }
    }
    levels > LEVELS
}

/// Returns the functions that a template calls, all of which exist, as do its filters and tests.
fn check(
    environment: &Environment<'_>,
    compiled: &CompiledTemplate<'_>,
    free: &HashSet<String>,
) -> Result<Vec<&'static str>, TemplateError> {
    let mut state = environment.empty_state();
    let mut exists =
        |test: &str, name: &str| matches!(state.perform_test(test, &[Value::from(name)]), Ok(true));
    let mut called = Vec::new();
    for (at, instruction) in instructions(compiled) {
        let message = match instruction {
            Instruction::CallFunction(name, _) if free.contains(*name) => {
                match functions::NAMES.iter().find(|known| *known == name) {
                    Some(known) => {
                        if !called.contains(known) {
                            called.push(*known);
                        }
                        continue;
                    }
                    None => unknown_function(name, exists("filter", name)),
                }
            }
            Instruction::ApplyFilter(name, ..) if !exists("filter", name) => {
                format!("there is no filter {name}")
            }
            Instruction::PerformTest(name, ..) if !exists("test", name) => {
                format!("there is no test {name}")
            }
            _ => continue,
        };
        let line = compiled.instructions.get_line(at).unwrap_or(1);
        return Err(TemplateError { line, message });
    }
    Ok(called)
}

fn unknown_function(name: &str, is_filter: bool) -> String {
    let mut refused = functions::REFUSED.iter();
    if let Some((_, reason)) = refused.find(|(refused, _)| *refused == name) {
        format!("there is no function {name}(): {reason}")
    } else if is_filter {
        format!("there is no function {name}(), but a filter: write {{{{ value | {name} }}}}")
    } else {
        format!("there is no function {name}()")
    }
}

/// A template ends without the end of its last line.
fn without_last_line_end(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}
