//! The macros: what looks like a function and binds variables, or asks whether a field is there.

use crate::SyntaxError;
use crate::compile::{Expr, Loop, LoopKind, Name, Scope};
use crate::parse::Ast;

/// Resolves a call that is a macro; `None` if it is a function.
pub(crate) fn expand(
    scope: &mut Scope<'_>,
    receiver: Option<&Ast>,
    name: &str,
    arguments: &[Ast],
) -> Result<Option<Expr>, SyntaxError> {
    let Some(range) = receiver else {
        return match (name, arguments) {
            ("has", [Ast::Select(operand, field, false)]) => {
                Ok(Some(match scope.attribute(operand, field)? {
                    Some(attribute) => Expr::HasAttribute(attribute.number),
                    None => Expr::Has(scope.boxed(operand)?, Name::new(field)),
                }))
            }
            ("has", _) => Err(SyntaxError::new("has() wants a field".to_owned())),
            _ => Ok(None),
        };
    };
    let (kind, variables, filter, key, body) = match (name, arguments) {
        ("all", [one, body]) => (LoopKind::All, vec![one], None, None, body),
        ("exists", [one, body]) => (LoopKind::Exists, vec![one], None, None, body),
        ("exists_one" | "existsOne", [one, body]) => {
            (LoopKind::ExistsOne, vec![one], None, None, body)
        }
        ("filter", [one, body]) => (LoopKind::Filter, vec![one], None, None, body),
        ("map", [one, body]) => (LoopKind::List, vec![one], None, None, body),
        ("map", [one, filter, body]) => (LoopKind::List, vec![one], Some(filter), None, body),
        ("sortBy", [one, body]) => (LoopKind::SortBy, vec![one], None, None, body),
        ("all", [one, two, body]) => (LoopKind::All, vec![one, two], None, None, body),
        ("exists", [one, two, body]) => (LoopKind::Exists, vec![one, two], None, None, body),
        ("exists_one" | "existsOne", [one, two, body]) => {
            (LoopKind::ExistsOne, vec![one, two], None, None, body)
        }
        ("transformList", [one, two, body]) => (LoopKind::List, vec![one, two], None, None, body),
        ("transformList", [one, two, filter, body]) => {
            (LoopKind::List, vec![one, two], Some(filter), None, body)
        }
        ("transformMap", [one, two, body]) => (LoopKind::Map, vec![one, two], None, None, body),
        ("transformMap", [one, two, filter, body]) => {
            (LoopKind::Map, vec![one, two], Some(filter), None, body)
        }
        ("transformMapEntry", [one, two, Ast::Map(entries)]) => match entries.as_slice() {
            [(key, body, false)] => (LoopKind::Entries, vec![one, two], None, Some(key), body),
            _ => {
                return Err(SyntaxError::new(
                    "transformMapEntry wants one entry".to_owned(),
                ));
            }
        },
        ("optMap" | "optFlatMap", [one, body]) => {
            let range = scope.boxed(range)?;
            let body = scope.within(&[variable(one)?], body)?;
            let flat = name == "optFlatMap";
            return Ok(Some(Expr::OptMap(range, Box::new(body), flat)));
        }
        _ => return Ok(None),
    };
    let names = variables.into_iter().map(variable);
    let names = names.collect::<Result<Vec<_>, _>>()?;
    // The range does not see the variables.
    let range = scope.resolve(range)?;
    let filter = filter
        .map(|filter| scope.within(&names, filter))
        .transpose()?;
    let key = key.map(|key| scope.within(&names, key)).transpose()?;
    let body = scope.within(&names, body)?;
    Ok(Some(Expr::Loop(Box::new(Loop {
        kind,
        range,
        pairs: names.len() == 2,
        filter,
        body,
        key,
    }))))
}

fn variable(ast: &Ast) -> Result<&str, SyntaxError> {
    match ast {
        Ast::Ident(name) => Ok(name),
        _ => Err(SyntaxError::new(
            "a macro wants the name of a variable".to_owned(),
        )),
    }
}
