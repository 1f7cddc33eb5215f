//! Evaluates expressions.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::rc::Rc;

use crate::attributes::{Attributes, Data};
use crate::compile::{Attribute, Expr, Loop, LoopKind, Name, Operator};
use crate::functions::Function;
use crate::json::Value;
use crate::pattern::Pattern;
use crate::value::{Cel, Text};

/// What evaluations may still cost, each of them and all together.
///
/// A step costs 1, and what goes through a text costs a tenth of its length more. These are an API server's
/// amounts for most functions; its own differ a little, in what no rule of a CRD comes near.
#[derive(Debug, Clone)]
pub struct Cost {
    each: u64,
    left: u64,
    total: u64,
}

/// Why there is no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The expression has no value: a field is missing, types do not fit.
    #[error("{0}")]
    Error(Cow<'static, str>),
    /// There is nothing left to spend.
    #[error("the evaluation takes too long")]
    Budget {
        /// Whether it was the budget of all evaluations together.
        total: bool,
    },
}

/// A value, or why there is none.
pub type Outcome<'v> = Result<Cel<'v>, Failure>;

impl Cost {
    /// What each evaluation may cost, and what all of them may together.
    pub fn new(each: u64, total: u64) -> Self {
        Self {
            each,
            left: each,
            total,
        }
    }

    /// Begins with the next evaluation.
    pub fn next(&mut self) {
        self.left = self.each;
    }

    pub(crate) fn spend(&mut self, amount: u64) -> Result<(), Failure> {
        let (total, each) = (self.total < amount, self.left < amount);
        if total || each {
            return Err(Failure::Budget { total });
        }
        self.total -= amount;
        self.left -= amount;
        Ok(())
    }

    /// Spends what it takes to go through a text.
    pub(crate) fn read(&mut self, text: &str) -> Result<(), Failure> {
        self.spend(text.len() as u64 / 10)
    }
}

impl Failure {
    pub(crate) fn error(what: impl Into<Cow<'static, str>>) -> Self {
        Self::Error(what.into())
    }

    pub(crate) fn overload() -> Self {
        Self::error("no such overload")
    }

    /// Whether the evaluation was stopped because it took too much, and not because it has no value.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Budget { .. })
    }
}

/// Evaluates an expression on the variables that are on the stack, or on attributes.
pub(crate) fn evaluate<'v>(
    expression: &'v Expr,
    attributes: Option<&'v dyn Attributes>,
    stack: &mut Vec<Cel<'v>>,
    cost: &mut Cost,
) -> Outcome<'v> {
    let height = stack.len();
    let mut machine = Machine {
        attributes,
        stack,
        cost,
    };
    let result = machine.run(expression);
    // What fails within a loop leaves its variables there.
    stack.truncate(height);
    result
}

/// The attributes, the variables and the budget.
pub(crate) struct Machine<'v, 'c> {
    attributes: Option<&'v dyn Attributes>,
    stack: &'c mut Vec<Cel<'v>>,
    pub(crate) cost: &'c mut Cost,
}

impl<'v> Machine<'v, '_> {
    fn run(&mut self, expression: &'v Expr) -> Outcome<'v> {
        self.cost.spend(1)?;
        Ok(match expression {
            Expr::Null => Cel::Null,
            Expr::Bool(value) => Cel::Bool(*value),
            Expr::Int(value) => Cel::Int(*value),
            Expr::Uint(value) => Cel::Uint(*value),
            Expr::Double(value) => Cel::Double(*value),
            Expr::Str(text) => Cel::Str(Text::Borrowed(text)),
            Expr::Bytes(bytes) => Cel::Bytes(bytes.as_slice().into()),
            Expr::Type(name) => Cel::Type(name),
            Expr::Variable(place) => self.stack.get(*place).cloned().unwrap_or(Cel::Null),
            Expr::Attribute(attribute, optional) => self.attribute(attribute, *optional)?,
            Expr::HasAttribute(number) => self.has_attribute(*number),
            Expr::Select(operand, name, optional) => {
                let operand = self.run(operand)?;
                self.select(&operand, name, *optional)?
            }
            Expr::Has(operand, name) => {
                let operand = self.run(operand)?;
                let operand = match &operand {
                    Cel::Optional(Some(inner)) => inner,
                    other => other,
                };
                match operand {
                    Cel::Optional(None) => Cel::Bool(false),
                    operand if operand.is_map() => Cel::Bool(self.field(operand, name)?.is_some()),
                    _ => return Err(Failure::overload()),
                }
            }
            Expr::Index(operand, index, optional) => {
                let (operand, index) = (self.run(operand)?, self.run(index)?);
                self.index(&operand, &index, *optional)?
            }
            Expr::List(members) => self.list(members)?,
            Expr::Map(entries) => self.map(entries)?,
            Expr::Not(operand) => Cel::Bool(!self.truth(operand)?),
            Expr::Negate(operand) => match self.run(operand)? {
                Cel::Int(value) => Cel::Int(value.checked_neg().ok_or_else(overflow)?),
                Cel::Double(value) => Cel::Double(-value),
                _ => return Err(Failure::overload()),
            },
            Expr::Binary(operator, left, right) => {
                let (left, right) = (self.run(left)?, self.run(right)?);
                self.binary(*operator, &left, &right)?
            }
            Expr::Chain(and, members) => Cel::Bool(self.chain(*and, members)?),
            Expr::Condition(condition, then, otherwise) => {
                let branch = if self.truth(condition)? {
                    then
                } else {
                    otherwise
                };
                self.run(branch)?
            }
            Expr::Call(function, arguments) => self.call(*function, arguments)?,
            Expr::Matches(text, pattern) => self.matches(text, pattern)?,
            Expr::Loop(each) => self.repeat(each)?,
            Expr::OptMap(operand, body, flat) => self.opt_map(operand, body, *flat)?,
        })
    }

    #[inline(never)] // so that the frame of `run`, which calls itself, stays small
    fn attribute(&mut self, attribute: &Attribute, optional: bool) -> Outcome<'v> {
        let found = self
            .attributes
            .and_then(|all| all.attribute(attribute.number));
        match found {
            found if optional => Ok(Cel::Optional(found.map(Rc::new))),
            Some(found) => Ok(found),
            None => Err(Failure::error(format!("no such key: {}", attribute.name))),
        }
    }

    #[inline(never)] // as above
    fn has_attribute(&mut self, number: u16) -> Cel<'v> {
        let found = self.attributes.and_then(|all| all.attribute(number));
        Cel::Bool(found.is_some())
    }

    #[inline(never)] // as above
    fn matches(&mut self, text: &'v Expr, pattern: &Pattern) -> Outcome<'v> {
        let Cel::Str(text) = self.run(text)? else {
            return Err(Failure::overload());
        };
        let length = pattern.text.len() as u64;
        let (text_cost, regex_cost) = (text.len() as u64 / 10 + 1, length / 4 + 1);
        self.cost.spend(text_cost.saturating_mul(regex_cost))?;
        Ok(Cel::Bool(pattern.is_match(&text)))
    }

    #[inline(never)] // as above
    fn opt_map(&mut self, operand: &'v Expr, body: &'v Expr, flat: bool) -> Outcome<'v> {
        match self.run(operand)? {
            Cel::Optional(None) => Ok(Cel::Optional(None)),
            Cel::Optional(Some(value)) => {
                self.stack.push((*value).clone());
                let result = self.run(body);
                self.stack.pop();
                match result? {
                    Cel::Optional(inner) if flat => Ok(Cel::Optional(inner)),
                    _ if flat => Err(Failure::overload()),
                    value => Ok(Cel::some(value)),
                }
            }
            _ => Err(Failure::overload()),
        }
    }

    /// Evaluates arguments, of which there are few, where no memory has to be asked for.
    #[inline(never)] // as above
    fn call(&mut self, function: Function, arguments: &'v [Expr]) -> Outcome<'v> {
        const MOST: usize = 4;
        if let [only] = arguments {
            let value = self.run(only)?;
            return (function.call)(self, &[value]);
        }
        let mut values = [const { Cel::Null }; MOST];
        for (place, argument) in values.iter_mut().zip(arguments) {
            *place = self.run(argument)?;
        }
        (function.call)(self, &values[..arguments.len().min(MOST)])
    }

    fn truth(&mut self, expression: &'v Expr) -> Result<bool, Failure> {
        match self.run(expression)? {
            Cel::Bool(value) => Ok(value),
            _ => Err(Failure::overload()),
        }
    }

    /// What decides a chain decides it wherever it stands, also after an error.
    fn chain(&mut self, and: bool, members: &'v [Expr]) -> Result<bool, Failure> {
        let mut failed = None;
        for member in members {
            match self.truth(member) {
                Ok(value) if value == and => {}
                Ok(value) => return Ok(value),
                Err(failure) if failure.is_final() => return Err(failure),
                Err(failure) => failed = failed.or(Some(failure)),
            }
        }
        failed.map_or(Ok(and), Err)
    }

    /// The field of a mapping that is elsewhere.
    #[inline(never)] // as above
    fn entry(&mut self, data: &'v dyn Data, name: &Name) -> Result<Option<Cel<'v>>, Failure> {
        if data.is_list() {
            return Err(Failure::overload());
        }
        self.cost.spend(data.len() as u64 / 32)?;
        Ok(data.entry(&name.written))
    }

    /// The field of a mapping.
    fn field(&mut self, operand: &Cel<'v>, name: &Name) -> Result<Option<Cel<'v>>, Failure> {
        match operand {
            Cel::Object(value, node) => {
                self.cost.spend(operand.len().unwrap_or(0) as u64 / 32)?;
                // Only the names of fields are escaped, not those of a mapping's keys.
                let has = |name: &str| node.is_none_or(|node| node.admits_field(name));
                let name = if !name.is_escaped || has(&name.meant) {
                    &name.meant
                } else {
                    &name.written
                };
                Ok(value.field(name).map(|found| match found {
                    // What it is does not depend on a schema.
                    Value::Str(text) if node.is_none_or(|node| !node.has_typed_fields) => {
                        Cel::Str(Text::Borrowed(text))
                    }
                    found => Cel::of(found, node.and_then(|node| node.field(name))),
                }))
            }
            Cel::Data(data) => self.entry(*data, name),
            Cel::Map(entries) => {
                self.cost.spend(entries.len() as u64 / 32)?;
                Ok(operand.entry(&Cel::made(name.written.as_str())))
            }
            _ => Err(Failure::overload()),
        }
    }

    fn select(&mut self, operand: &Cel<'v>, name: &Name, optional: bool) -> Outcome<'v> {
        match operand {
            Cel::Optional(None) => Ok(Cel::Optional(None)),
            Cel::Optional(Some(inner)) => {
                let found = self.field(inner, name)?;
                Ok(Cel::Optional(found.map(Rc::new)))
            }
            operand => match self.field(operand, name)? {
                found if optional => Ok(Cel::Optional(found.map(Rc::new))),
                Some(found) => Ok(found),
                None => Err(Failure::error(format!("no such key: {}", name.meant))),
            },
        }
    }

    pub(crate) fn index(
        &mut self,
        operand: &Cel<'v>,
        index: &Cel<'v>,
        optional: bool,
    ) -> Outcome<'v> {
        if let Cel::Optional(inner) = operand {
            return match inner {
                None => Ok(Cel::Optional(None)),
                Some(inner) => self.index(inner, index, true),
            };
        }
        let found = if operand.is_list() {
            let place = match index {
                Cel::Int(place) => usize::try_from(*place).ok(),
                Cel::Uint(place) => usize::try_from(*place).ok(),
                Cel::Double(place) if place.fract() == 0.0 && *place >= 0.0 =>
                {
                    #[allow(
                        clippy::cast_possible_truncation,
                        clippy::cast_sign_loss,
                        reason = "it is whole, and not negative"
                    )]
                    Some(*place as usize)
                }
                _ => return Err(Failure::overload()),
            };
            place.and_then(|place| operand.member(place))
        } else if operand.is_map() {
            self.cost.spend(operand.len().unwrap_or(0) as u64 / 32)?;
            operand.entry(index)
        } else {
            return Err(Failure::overload());
        };
        match found {
            found if optional => Ok(Cel::Optional(found.map(Rc::new))),
            Some(found) => Ok(found),
            None if operand.is_list() => Err(Failure::error(match index {
                Cel::Int(place) => format!("index out of bounds: {place}"),
                _ => "index out of bounds".to_owned(),
            })),
            None => Err(Failure::error(match index {
                Cel::Str(key) => format!("no such key: {}", &**key),
                _ => "no such key".to_owned(),
            })),
        }
    }

    #[inline(never)] // as above
    fn list(&mut self, members: &'v [(Expr, bool)]) -> Outcome<'v> {
        self.cost.spend(10)?;
        let mut items = Vec::with_capacity(members.len());
        for (member, optional) in members {
            match (self.run(member)?, optional) {
                (Cel::Optional(None), true) => {}
                (Cel::Optional(Some(inner)), true) => items.push((*inner).clone()),
                (_, true) => return Err(Failure::overload()),
                (value, false) => items.push(value),
            }
        }
        Ok(Cel::list(items))
    }

    #[inline(never)] // as above
    fn map(&mut self, entries: &'v [(Expr, Expr, bool)]) -> Outcome<'v> {
        self.cost.spend(30)?;
        let mut made: Vec<(Cel<'v>, Cel<'v>)> = Vec::with_capacity(entries.len());
        for (key, value, optional) in entries {
            let key = self.run(key)?;
            let value = match (self.run(value)?, optional) {
                (Cel::Optional(None), true) => continue,
                (Cel::Optional(Some(inner)), true) => (*inner).clone(),
                (_, true) => return Err(Failure::overload()),
                (value, false) => value,
            };
            self.insert(&mut made, key, value)?;
        }
        Ok(Cel::Map(Rc::new(made)))
    }

    fn insert(
        &mut self,
        made: &mut Vec<(Cel<'v>, Cel<'v>)>,
        key: Cel<'v>,
        value: Cel<'v>,
    ) -> Result<(), Failure> {
        self.cost.spend(1 + made.len() as u64 / 32)?;
        if !matches!(key, Cel::Bool(_) | Cel::Int(_) | Cel::Uint(_) | Cel::Str(_)) {
            return Err(Failure::error("unsupported key type"));
        }
        if made.iter().any(|(one, _)| one.equals(&key)) {
            return Err(Failure::error("a mapping has a key twice"));
        }
        made.push((key, value));
        Ok(())
    }

    #[inline(never)] // as above
    fn binary(&mut self, operator: Operator, left: &Cel<'v>, right: &Cel<'v>) -> Outcome<'v> {
        use Operator as O;
        Ok(match operator {
            O::Equal | O::Unequal => {
                self.compare(left, right)?;
                Cel::Bool(left.equals(right) == (operator == O::Equal))
            }
            O::Less | O::LessOrEqual | O::Greater | O::GreaterOrEqual => {
                self.compare(left, right)?;
                let nan = |one: &Cel<'_>| matches!(one, Cel::Double(value) if value.is_nan());
                match left.order(right) {
                    None if nan(left) || nan(right) => Cel::Bool(false),
                    None => return Err(Failure::overload()),
                    Some(order) => Cel::Bool(match operator {
                        O::Less => order == Ordering::Less,
                        O::LessOrEqual => order != Ordering::Greater,
                        O::Greater => order == Ordering::Greater,
                        _ => order != Ordering::Less,
                    }),
                }
            }
            O::In if right.is_list() => {
                let mut found = false;
                for place in 0..right.len().unwrap_or(0) {
                    let Some(member) = right.member(place) else {
                        break;
                    };
                    self.compare(&member, left)?;
                    if member.equals(left) {
                        found = true;
                        break;
                    }
                }
                Cel::Bool(found)
            }
            O::In if right.is_map() => {
                self.cost.spend(right.len().unwrap_or(0) as u64 / 32)?;
                Cel::Bool(right.entry(left).is_some())
            }
            O::In => return Err(Failure::overload()),
            O::Add => self.add(left, right)?,
            _ => arithmetic(operator, left, right)?,
        })
    }

    /// Spends what it takes to compare two values.
    pub(crate) fn compare(&mut self, left: &Cel<'v>, right: &Cel<'v>) -> Result<(), Failure> {
        let weight = match (left, right) {
            (Cel::Str(left), Cel::Str(right)) => left.len().min(right.len()) as u64 / 10,
            (
                Cel::Object(..) | Cel::Data(_) | Cel::List(_) | Cel::Map(_),
                Cel::Object(..) | Cel::Data(_) | Cel::List(_) | Cel::Map(_),
            ) if left.len() == right.len() => {
                // The items of sets are compared with each other, and keys are looked for.
                let most = left.len().unwrap_or(1).max(1) as u64;
                left.weight().max(right.weight()).saturating_mul(most)
            }
            _ => 0,
        };
        self.cost.spend(weight)
    }

    fn add(&mut self, left: &Cel<'v>, right: &Cel<'v>) -> Outcome<'v> {
        match (left, right) {
            (Cel::Str(one), Cel::Str(two)) => {
                self.cost.spend((one.len() + two.len()) as u64 / 10)?;
                Ok(Cel::made([&**one, &**two].concat()))
            }
            (Cel::Bytes(one), Cel::Bytes(two)) => {
                self.cost.spend((one.len() + two.len()) as u64 / 10)?;
                Ok(Cel::Bytes([&**one, &**two].concat().into()))
            }
            _ if left.is_list() && right.is_list() => {
                let (one, two) = (left.len().unwrap_or(0), right.len().unwrap_or(0));
                self.cost.spend((one + two) as u64)?;
                let items = (0..one).filter_map(|place| left.member(place));
                let more = (0..two).filter_map(|place| right.member(place));
                Ok(Cel::list(items.chain(more).collect()))
            }
            _ => arithmetic(Operator::Add, left, right),
        }
    }

    #[inline(never)] // as above
    fn repeat(&mut self, each: &'v Loop) -> Outcome<'v> {
        let range = self.run(&each.range)?;
        let length = range.len().ok_or_else(Failure::overload)?;
        let mut made = Vec::new();
        let mut entries = Vec::new();
        let (mut count, mut failed) = (0, None);
        for place in 0..length {
            // An entry of a mapping that is elsewhere is counted up to.
            let way = if matches!(range, Cel::Data(_)) {
                place as u64 / 32
            } else {
                0
            };
            self.cost.spend(1 + way)?;
            let height = self.stack.len();
            let Some(first) = range.member(place) else {
                break;
            };
            if each.pairs {
                let second = range.element(place).unwrap_or(Cel::Null);
                let first = if range.is_list() {
                    Cel::Int(i64::try_from(place).unwrap_or(i64::MAX))
                } else {
                    first
                };
                self.stack.extend([first, second]);
            } else {
                self.stack.push(first);
            }
            let result = self.one(each, &mut made, &mut entries);
            let item = self.stack.get(height).cloned();
            self.stack.truncate(height);
            match (each.kind, result) {
                (LoopKind::All, Ok(false)) => return Ok(Cel::Bool(false)),
                (LoopKind::Exists, Ok(true)) => return Ok(Cel::Bool(true)),
                (LoopKind::ExistsOne, Ok(true)) => count += 1,
                (LoopKind::Filter, Ok(true)) => made.extend(item.map(|item| (Cel::Null, item))),
                (LoopKind::SortBy, Ok(_)) => {
                    if let (Some(last), Some(item)) = (made.last_mut(), item) {
                        last.1 = item;
                    }
                }
                (LoopKind::All | LoopKind::Exists, Err(failure)) if !failure.is_final() => {
                    failed = failed.or(Some(failure));
                }
                (_, Err(failure)) => return Err(failure),
                _ => {}
            }
        }
        if let Some(failure) = failed {
            return Err(failure);
        }
        Ok(match each.kind {
            LoopKind::All => Cel::Bool(true),
            LoopKind::Exists => Cel::Bool(false),
            LoopKind::ExistsOne => Cel::Bool(count == 1),
            LoopKind::Filter | LoopKind::List => {
                Cel::list(made.into_iter().map(|(_, value)| value).collect())
            }
            LoopKind::SortBy => {
                if made
                    .windows(2)
                    .any(|two| two[0].0.order(&two[1].0).is_none())
                {
                    return Err(Failure::overload());
                }
                self.cost.spend(made.len() as u64)?;
                made.sort_by(|one, two| one.0.order(&two.0).unwrap_or(Ordering::Equal));
                Cel::list(made.into_iter().map(|(_, value)| value).collect())
            }
            LoopKind::Map | LoopKind::Entries => Cel::Map(Rc::new(entries)),
        })
    }

    /// One turn of a loop; returns whether the predicate holds.
    fn one(
        &mut self,
        each: &'v Loop,
        made: &mut Vec<(Cel<'v>, Cel<'v>)>,
        entries: &mut Vec<(Cel<'v>, Cel<'v>)>,
    ) -> Result<bool, Failure> {
        if let Some(filter) = &each.filter
            && !self.truth(filter)?
        {
            return Ok(false);
        }
        match each.kind {
            LoopKind::All | LoopKind::Exists | LoopKind::ExistsOne | LoopKind::Filter => {
                return self.truth(&each.body);
            }
            LoopKind::List => {
                let value = self.run(&each.body)?;
                made.push((Cel::Null, value));
            }
            LoopKind::SortBy => {
                let key = self.run(&each.body)?;
                made.push((key, Cel::Null));
            }
            LoopKind::Map => {
                let key = self.stack[self.stack.len() - 2].clone();
                let value = self.run(&each.body)?;
                self.insert(entries, key, value)?;
            }
            LoopKind::Entries => {
                let key = match &each.key {
                    Some(key) => self.run(key)?,
                    None => Cel::Null,
                };
                let value = self.run(&each.body)?;
                self.insert(entries, key, value)?;
            }
        }
        Ok(true)
    }
}

fn overflow() -> Failure {
    Failure::error("integer overflow")
}

fn arithmetic<'v>(operator: Operator, left: &Cel<'v>, right: &Cel<'v>) -> Outcome<'v> {
    use Operator as O;
    Ok(match (left, right) {
        (Cel::Int(one), Cel::Int(two)) => {
            if *two == 0 && matches!(operator, O::Divide | O::Modulo) {
                return Err(Failure::error(zero(operator)));
            }
            let result = match operator {
                O::Add => one.checked_add(*two),
                O::Subtract => one.checked_sub(*two),
                O::Multiply => one.checked_mul(*two),
                O::Divide => one.checked_div(*two),
                _ => one.checked_rem(*two),
            };
            Cel::Int(result.ok_or_else(overflow)?)
        }
        (Cel::Uint(one), Cel::Uint(two)) => {
            if *two == 0 && matches!(operator, O::Divide | O::Modulo) {
                return Err(Failure::error(zero(operator)));
            }
            let result = match operator {
                O::Add => one.checked_add(*two),
                O::Subtract => one.checked_sub(*two),
                O::Multiply => one.checked_mul(*two),
                O::Divide => one.checked_div(*two),
                _ => one.checked_rem(*two),
            };
            Cel::Uint(result.ok_or_else(overflow)?)
        }
        (Cel::Double(one), Cel::Double(two)) => Cel::Double(match operator {
            O::Add => one + two,
            O::Subtract => one - two,
            O::Multiply => one * two,
            O::Divide => one / two,
            _ => return Err(Failure::overload()),
        }),
        (Cel::Duration(one), Cel::Duration(two)) => {
            let result = match operator {
                O::Add => one.checked_add(*two),
                O::Subtract => one.checked_sub(*two),
                _ => return Err(Failure::overload()),
            };
            Cel::Duration(result.ok_or_else(overflow)?)
        }
        (Cel::Timestamp(one), Cel::Duration(two)) => Cel::Timestamp(Rc::new(match operator {
            O::Add => **one + i128::from(*two),
            O::Subtract => **one - i128::from(*two),
            _ => return Err(Failure::overload()),
        })),
        (Cel::Duration(one), Cel::Timestamp(two)) if operator == O::Add => {
            Cel::Timestamp(Rc::new(i128::from(*one) + **two))
        }
        (Cel::Timestamp(one), Cel::Timestamp(two)) if operator == O::Subtract => {
            Cel::Duration(i64::try_from(**one - **two).map_err(|_| overflow())?)
        }
        _ => return Err(Failure::overload()),
    })
}

fn zero(operator: Operator) -> &'static str {
    if operator == Operator::Divide {
        "division by zero"
    } else {
        "modulus by zero"
    }
}
