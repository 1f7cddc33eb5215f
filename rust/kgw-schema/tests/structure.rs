//! The structural checks, by schema and object.

use kgw_schema::{Fault, Schema, Value, Violation, Write};
use serde_json::{Value as Json, json};

fn found(schema: &Json, object: &Json) -> Vec<Violation> {
    let schema = Schema::compile(schema).expect("a schema");
    schema.validate(Value::from(object), None, Write::Object)
}

/// What is wrong with a value under `v`, in the words of an API server.
fn texts(schema: &Json, value: &Json) -> Vec<String> {
    let schema = json!({"type": "object", "properties": {"v": schema}});
    let found = found(&schema, &json!({"v": value}));
    found.iter().map(Violation::api_server_text).collect()
}

#[test]
fn faults_are_in_the_words_of_an_api_server() {
    let table = [
        (
            json!({"type": "integer"}),
            json!("a"),
            r#"v: Invalid value: "string": v in body must be of type integer: "string""#,
        ),
        (
            json!({"type": "string", "enum": ["a", "b"]}),
            json!("c"),
            r#"v: Unsupported value: "c": supported values: "a", "b""#,
        ),
        (
            json!({"type": "string", "pattern": "^a$"}),
            json!("b"),
            r#"v: Invalid value: "b": v in body should match '^a$'"#,
        ),
        (
            json!({"type": "string", "minLength": 1}),
            json!(""),
            r#"v: Invalid value: "": v in body should be at least 1 chars long"#,
        ),
        (
            json!({"type": "string", "maxLength": 1}),
            json!("ab"),
            "v: Too long: may not be more than 1 bytes",
        ),
        (
            json!({"type": "string", "format": "ipv4"}),
            json!("a"),
            r#"v: Invalid value: "a": v in body must be of type ipv4: "a""#,
        ),
        (
            json!({"type": "integer", "minimum": 1}),
            json!(0),
            "v: Invalid value: 0: v in body should be greater than or equal to 1",
        ),
        (
            json!({"type": "number", "maximum": 1.5, "exclusiveMaximum": true}),
            json!(1.5),
            "v: Invalid value: 1.5: v in body should be less than 1.5",
        ),
        (
            json!({"type": "integer", "format": "int32"}),
            json!(2_147_483_648_i64),
            r#"v: Invalid value: "2147483648": v in body must be of type int32: "2147483648""#,
        ),
        (
            json!({"type": "integer", "multipleOf": 2}),
            json!(3),
            "v: Invalid value: 3: v in body should be a multiple of 2",
        ),
        (
            json!({"type": "array", "minItems": 1, "items": {}}),
            json!([]),
            "v: Invalid value: 0: v in body should have at least 1 items",
        ),
        (
            json!({"type": "array", "maxItems": 1, "items": {}}),
            json!([1, 2]),
            "v: Too many: 2: must have at most 1 item",
        ),
        (
            json!({"type": "object", "maxProperties": 0, "additionalProperties": true}),
            json!({"a": 1}),
            "v: Too many: 1: must have at most 0 items",
        ),
        (
            json!({"type": "object", "required": ["a"], "properties": {"a": {}}}),
            json!({}),
            "v.a: Required value",
        ),
        (
            json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}),
            json!(["a", "b", "a"]),
            r#"v[2]: Duplicate value: "a""#,
        ),
        (
            json!({
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "properties": {"name": {"type": "string"}}},
            }),
            json!([{"name": "a"}, {"name": "a"}]),
            r#"v[1]: Duplicate value: {"name":"a"}"#,
        ),
        (
            json!({"type": "object"}),
            json!({"a": 1}),
            r#"unknown field "v.a""#,
        ),
        (
            json!({"type": "string", "not": {"enum": ["a"]}}),
            json!("a"),
            r#"v: Invalid value: "": must validate the schema (not)"#,
        ),
    ];
    for (schema, value, text) in table {
        assert_eq!(texts(&schema, &value), [text]);
    }
}

#[test]
fn what_fits_is_taken() {
    let table = [
        (json!({"type": "integer"}), json!(1.0)),
        (json!({"type": "number"}), json!(1)),
        (json!({"x-kubernetes-int-or-string": true}), json!("a")),
        (json!({"x-kubernetes-int-or-string": true}), json!(1)),
        (json!({"type": "string", "nullable": true}), json!(null)),
        (json!({"type": "string"}), json!(null)),
        (json!({"type": "string", "maxLength": 2}), json!("äé")),
        (json!({"type": "string", "format": "int32"}), json!("a")),
        (
            json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
            json!({"a": {"b": 1}}),
        ),
        (
            json!({"type": "object", "additionalProperties": true}),
            json!({"a": {"b": 1}}),
        ),
        (
            json!({"type": "array", "items": {"type": "string"}}),
            json!(["a", "a"]),
        ),
        (
            json!({"type": "object", "x-kubernetes-embedded-resource": true}),
            json!({"apiVersion": "v1", "kind": "A", "metadata": {"name": "a"}}),
        ),
        (
            json!({"anyOf": [{"type": "integer"}, {"type": "string"}]}),
            json!("a"),
        ),
        (
            json!({"type": "integer", "allOf": [{"minimum": 1}, {"maximum": 2}]}),
            json!(2),
        ),
    ];
    for (schema, value) in table {
        assert_eq!(texts(&schema, &value), [""; 0], "{schema} {value}");
    }
}

#[test]
fn the_nearest_alternative_says_what_is_wrong() {
    let address = json!({
        "type": "object",
        "properties": {"type": {"type": "string"}, "value": {"type": "string"}},
        "oneOf": [
            {"properties": {
                "type": {"enum": ["IP"]}, "value": {"anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]},
            }},
            {"properties": {"type": {"not": {"enum": ["IP"]}}}},
        ],
    });
    assert_eq!(
        texts(&address, &json!({"type": "IP", "value": "a"})),
        [r#"v.value: Invalid value: "a": v.value in body must be of type ipv4: "a""#]
    );
    assert_eq!(
        texts(&address, &json!({"type": "IP", "value": "::1"})),
        [""; 0]
    );
    assert_eq!(
        texts(&address, &json!({"type": "Name", "value": "a"})),
        [""; 0]
    );
}

#[test]
fn rules_see_defaults_and_no_unknown_fields() {
    let schema = json!({
        "type": "object",
        "properties": {
            "a": {"type": "string", "default": "x"},
            "b": {
                "type": "object",
                "default": {},
                "properties": {"c": {"type": "integer", "default": 3}},
            },
            "l": {"type": "array", "items": {
                "type": "object", "properties": {"d": {"type": "boolean", "default": true}},
            }},
        },
        "x-kubernetes-validations": [
            {"rule": "self.a == 'x' && self.b.c == 3 && self.l.all(i, i.d) && self.l[0].size() == 1"},
        ],
    });
    let object = json!({"a": null, "l": [{"unknown": 1}, {}]});
    let found = found(&schema, &object);
    let faults: Vec<_> = found.iter().map(|one| &one.fault).collect();
    assert!(matches!(faults[..], [Fault::Unknown { .. }]), "{found:?}");
}

#[test]
fn rules_of_a_part_that_is_broken_wait() {
    let part = json!({
        "type": "object",
        "properties": {"n": {"type": "integer"}, "s": {"type": "string", "pattern": "^a"}},
        "x-kubernetes-validations": [{"rule": "self.n > 1", "message": "more than one"}],
    });
    let schema = json!({
        "type": "object",
        "properties": {"a": part, "b": part, "c": part},
        "x-kubernetes-validations": [{"rule": "false", "message": "never"}],
    });
    let object = json!({"a": {"n": "x"}, "b": {"n": 1}, "c": {"n": 1, "s": "b"}});
    let found = found(&schema, &object);
    let texts: Vec<_> = found.iter().map(Violation::api_server_text).collect();
    // What has another form than the pattern can be evaluated all the same.
    assert_eq!(
        texts,
        [
            r#"a.n: Invalid value: "string": a.n in body must be of type integer: "string""#,
            r#"c.s: Invalid value: "b": c.s in body should match '^a'"#,
            "b: Invalid value: more than one",
            "c: Invalid value: more than one",
        ]
    );
}

#[test]
fn messages_reasons_and_fields_are_those_of_the_rule() {
    let schema = |rule: Json| {
        json!({
            "type": "object",
            "properties": {"n": {"type": "integer"}, "a-b": {"type": "string"}},
            "x-kubernetes-validations": [rule],
        })
    };
    let table = [
        (
            json!({"rule": "self.n > 1"}),
            ": Invalid value: failed rule: self.n > 1",
        ),
        (
            json!({"rule": "self.n > 1", "messageExpression": "'not ' + string(self.n)"}),
            ": Invalid value: not 1",
        ),
        (
            json!({"rule": "self.n > 1", "message": "m", "messageExpression": "string(1 / 0)"}),
            ": Invalid value: m",
        ),
        (
            json!({"rule": "self.n > 1", "message": "m", "reason": "FieldValueForbidden", "fieldPath": ".n"}),
            "n: Forbidden: m",
        ),
        (
            json!({"rule": "self.n > 1", "message": "m", "reason": "FieldValueRequired", "fieldPath": "['a-b']"}),
            "a-b: Required value: m",
        ),
    ];
    for (rule, text) in table {
        let found = found(&schema(rule), &json!({"n": 1}));
        let texts: Vec<_> = found.iter().map(Violation::api_server_text).collect();
        assert_eq!(texts, [text]);
    }
}

#[test]
fn rules_about_a_change_want_one() {
    let schema = |optional: bool| {
        let rule = if optional {
            json!({"rule": "!oldSelf.hasValue() || oldSelf.value().n <= self.n", "optionalOldSelf": true})
        } else {
            json!({"rule": "oldSelf.n <= self.n"})
        };
        let item = json!({
            "type": "object",
            "properties": {"k": {"type": "string"}, "n": {"type": "integer"}},
            "x-kubernetes-validations": [rule],
        });
        let list = json!({
            "type": "array",
            "items": item,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["k"],
        });
        let schema = json!({"type": "object", "properties": {"l": list}});
        Schema::compile(&schema).expect("a schema")
    };
    let object = |items: Json| Value::from(&json!({"l": items}));
    let after = json!([{"k": "new", "n": 0}, {"k": "b", "n": 1}, {"k": "a", "n": 5}]);
    let before = json!([{"k": "a", "n": 4}, {"k": "b", "n": 2}]);
    for optional in [false, true] {
        let schema = schema(optional);
        let created = schema.validate(object(after.clone()), None, Write::Object);
        assert_eq!(created, []);
        let changed = schema.validate(
            object(after.clone()),
            Some(object(before.clone())),
            Write::Object,
        );
        let paths: Vec<_> = changed
            .iter()
            .map(|one| kgw_schema::path_text(&one.path))
            .collect();
        assert_eq!(paths, ["l[1]"]);
    }
}

#[test]
fn nesting_and_faults_are_limited() {
    let mut value = json!(1);
    for _ in 0..300 {
        value = json!({ "v": value });
    }
    let mut schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    for _ in 0..40 {
        schema = json!({"type": "object", "properties": {"v": schema}});
    }
    assert_eq!(found(&schema, &value), []);
    for _ in 0..100 {
        schema = json!({"type": "object", "properties": {"v": schema}});
    }
    assert!(Schema::compile(&schema).is_err());
    let list = json!({"type": "array", "items": {"type": "string"}});
    let many: Vec<_> = (0..10_000).collect();
    assert!(texts(&list, &json!(many)).len() <= 200);
}
