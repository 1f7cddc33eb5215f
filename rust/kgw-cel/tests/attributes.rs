//! Expressions about attributes: what they ask for, what is an error, and that they are bounded.

use std::cell::RefCell;

use kgw_cel::{Attributes, Cel, Cost, Failure, Fields, Names, Program, Root};
use proptest::prelude::*;
use serde_json::json;

const METHOD: u16 = 0;
const PATH: u16 = 1;
const HEADERS: u16 = 2;
const METADATA: u16 = 3;
const PORT: u16 = 4;

const ROOTS: [Root; 3] = [
    Root {
        name: "request",
        fields: Fields::Named(&[("method", METHOD), ("path", PATH), ("headers", HEADERS)]),
    },
    Root {
        name: "metadata",
        fields: Fields::Whole(METADATA),
    },
    Root {
        name: "source",
        fields: Fields::Named(&[("port", PORT)]),
    },
];

/// A request that has a path and headers, but neither a method nor a port.
struct Request {
    headers: serde_json::Value,
    metadata: serde_json::Value,
    asked: RefCell<Vec<u16>>,
}

impl Request {
    fn new() -> Self {
        Self {
            headers: json!({"host": "a.example", "x-role": "admin"}),
            metadata: json!({"jwt": {"sub": "ann", "groups": ["a", "b"], "exp": 12, "deep": {"x": true}}}),
            asked: RefCell::default(),
        }
    }
}

impl Attributes for Request {
    fn attribute(&self, number: u16) -> Option<Cel<'_>> {
        self.asked.borrow_mut().push(number);
        match number {
            PATH => Some(Cel::borrowed("/a/b")),
            HEADERS => Some(Cel::of_json(&self.headers)),
            METADATA => Some(Cel::of_json(&self.metadata)),
            _ => None,
        }
    }
}

fn compile(text: &str) -> Program {
    Program::compile(text, Names::Attributes(&ROOTS)).expect(text)
}

fn holds(text: &str) -> Result<bool, String> {
    compile(text)
        .holds(&Request::new(), &mut Cost::new(10_000, 10_000))
        .map_err(|failure| failure.to_string())
}

#[test]
fn attributes_have_their_values() {
    let table = [
        "request.path == '/a/b' && request['path'].startsWith('/a')",
        "request.headers['x-role'] == 'admin' && request.headers.host == 'a.example'",
        "'host' in request.headers && !('cookie' in request.headers) && size(request.headers) == 2",
        "has(request.path) && !has(request.method) && has(request.headers.host)",
        "!has(request.headers.cookie) && has(metadata.jwt.deep.x)",
        "request.?method.orValue('GET') == 'GET' && request[?'method'].orValue('x') == 'x'",
        "request.headers.exists(name, name.startsWith('x-') && request.headers[name] == 'admin')",
        "metadata['jwt'].sub == 'ann' && 'b' in metadata.jwt.groups && metadata.jwt.groups[0] == 'a'",
        "metadata.jwt.exp == 12 && metadata.jwt.exp > 11 && type(metadata.jwt.exp) == double",
        "metadata.jwt.groups == ['a', 'b'] && metadata.jwt.deep == {'x': true} && metadata.jwt.deep.x",
        "metadata.jwt.groups.map(group, group + '!') == ['a!', 'b!']",
        // What decides comes after an error.
        "request.method == 'GET' || request.path == '/a/b'",
        // The variable of a macro hides the name of a root.
        "[1, 2].exists(request, request == 2)",
    ];
    for text in table {
        assert_eq!(holds(text), Ok(true), "{text}");
    }
}

#[test]
fn what_is_missing_is_an_error() {
    let table = [
        ("request.method == 'GET'", "no such key: method"),
        ("request.headers.cookie == 'a'", "no such key: cookie"),
        ("request.headers['cookie'] == 'a'", "no such key: cookie"),
        ("metadata.jwt.groups[2] == 'c'", "index out of bounds: 2"),
        ("source.port > 1", "no such key: port"),
        ("request.path > 1", "no such overload"),
        (
            "request.path",
            "the result is no boolean but of type string",
        ),
    ];
    for (text, error) in table {
        assert_eq!(holds(text), Err(error.to_owned()), "{text}");
    }
}

#[test]
fn what_does_not_exist_is_refused() {
    let table = [
        (
            "requst.path == '/'",
            "undeclared reference to 'requst'; there are request, metadata, source",
        ),
        (
            "request.paht == '/'",
            "there is no attribute 'request.paht', but request.method, request.path, request.headers",
        ),
        (
            "has(source.address)",
            "there is no attribute 'source.address', but source.port",
        ),
        (
            "size(source) > 0",
            "'source' is nothing by itself; there are source.port",
        ),
        (
            "request.path.startswith('/')",
            "undeclared reference to 'startswith', or other arguments",
        ),
        ("request.path ==", "the expression has no end"),
        (
            "self.path == ''",
            "undeclared reference to 'self'; there are request, metadata, source",
        ),
        (
            "request.path.matches('(?:a{1000}){1000}')",
            "the pattern `(?:a{1000}){1000}` is too large",
        ),
    ];
    for (text, error) in table {
        let found = Program::compile(text, Names::Attributes(&ROOTS));
        assert_eq!(
            found.map(|_| ()).map_err(|error| error.to_string()),
            Err(error.to_owned()),
            "{text}"
        );
    }
}

#[test]
fn attributes_are_asked_for_when_they_are_needed() {
    let program =
        compile("request.path == '/x' && request.headers.host == 'b' || source.port == 1");
    assert_eq!(program.attributes(), [PATH, HEADERS, PORT]);
    let request = Request::new();
    let result = program.holds(&request, &mut Cost::new(100, 100));
    assert!(matches!(result, Err(Failure::Error(_))));
    assert_eq!(*request.asked.borrow(), [PATH, PORT]);
}

#[test]
fn conditions_are_told_from_other_values() {
    for text in [
        "request.path",
        "true",
        "!has(request.path)",
        "1 < 2",
        "[1].all(x, true)",
    ] {
        assert!(compile(text).may_be_bool(), "{text}");
    }
    for text in [
        "'a'",
        "1 + 2",
        "[true]",
        "{}",
        "null",
        "bool",
        "true ? 1 : 2",
        "request.?path",
    ] {
        assert!(!compile(text).may_be_bool(), "{text}");
    }
}

#[test]
fn what_costs_too_much_is_stopped() {
    let text =
        "[1, 2, 3, 4, 5, 6, 7, 8, 9].map(a, [1, 2, 3, 4, 5, 6, 7, 8, 9].map(b, a * b)) != []";
    let program = compile(text);
    let request = Request::new();
    assert_eq!(
        program.holds(&request, &mut Cost::new(1000, 1000)),
        Ok(true)
    );
    let stopped = program.holds(&request, &mut Cost::new(200, 1000));
    assert_eq!(stopped, Err(Failure::Budget { total: false }));
    // What decides elsewhere does not hide it.
    let program = compile(&format!("({text}) || true"));
    let stopped = program.holds(&request, &mut Cost::new(200, 200));
    assert!(stopped.is_err_and(|failure| failure.is_final()));
}

#[test]
fn data_says_nothing_of_what_is_in_it() {
    let request = Request::new();
    let shown = format!("{:?}", request.attribute(METADATA));
    assert!(
        shown.contains("Map(1)") && !shown.contains("ann"),
        "{shown}"
    );
}

proptest! {
    /// Any text is an expression or none, and an evaluation ends with a value or an error.
    #[test]
    fn any_text_is_done_with(text in r#"(request|metadata|source|[a-z(){}\[\].,?:!<>=+*/%'"0-9 |&-]|\.path|\.headers|all\(x, ){0,40}"#) {
        if let Ok(program) = Program::compile(&text, Names::Attributes(&ROOTS)) {
            let _ = program.holds(&Request::new(), &mut Cost::new(1000, 1000));
        }
    }

    /// What is looked up in JSON where it is, is what it is in a mapping that an expression makes.
    #[test]
    fn json_is_as_what_an_expression_makes(items in prop::collection::vec(0_u32..5, 0..6), wanted in 0_u32..5) {
        let mut request = Request::new();
        request.metadata = json!({"l": items});
        let made = items.iter().map(|item| format!("{item}.0")).collect::<Vec<_>>().join(", ");
        let text = format!(
            "metadata.l == [{made}] && ({wanted} in metadata.l) == ({wanted} in [{made}]) \
             && metadata.l.exists_one(x, x == {wanted}) == [{made}].exists_one(x, x == {wanted})"
        );
        let result = compile(&text).holds(&request, &mut Cost::new(10_000, 10_000));
        prop_assert_eq!(result, Ok(true));
    }
}
