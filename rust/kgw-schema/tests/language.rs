//! The expression language, by what expressions result in.

use kgw_cel::{Names, Program};
use kgw_schema::{Fault, Schema, Value, Write};
use serde_json::json;

/// What rules are about.
const NAMES: Names<'_> = Names::Variables(&["self", "oldSelf"]);

/// What a rule says about an object whose field `v` has a value: `Ok` if it holds or not, and an error.
fn outcome(
    rule: &str,
    schema: &serde_json::Value,
    value: &serde_json::Value,
) -> Result<bool, String> {
    let schema = json!({
        "type": "object",
        "properties": {"v": schema},
        "x-kubernetes-validations": [{"rule": rule}],
    });
    let schema = Schema::compile(&schema).map_err(|error| error.to_string())?;
    let object = json!({"v": value});
    let found = schema.validate(Value::from(&object), None, Write::Object);
    match found.first().map(|violation| &violation.fault) {
        None => Ok(true),
        Some(Fault::Rule { .. }) => Ok(false),
        Some(Fault::Evaluation { error, .. }) => Err(error.clone()),
        Some(other) => Err(format!("{other:?}")),
    }
}

fn any() -> serde_json::Value {
    json!({"x-kubernetes-preserve-unknown-fields": true})
}

fn holds(rule: &str) -> Result<bool, String> {
    let value = json!({"s": "text", "n": 3, "f": 1.5, "l": [1, 2, 3], "m": {"a": "b"}, "t": true});
    outcome(rule, &any(), &value)
}

#[test]
fn expressions_have_their_values() {
    let table = [
        // Literals and operators.
        "1 + 2 * 3 == 7 && (1 + 2) * 3 == 9",
        "7 / 2 == 3 && -7 / 2 == -3 && 7 % 3 == 1 && -7 % 3 == -1",
        "1.5 + 0.5 == 2.0 && 1 == 1.0 && 1u == 1 && 2 > 1.5 && 1u < 2",
        "0xff == 255 && -9223372036854775808 < 0 && 1e3 == 1000.0",
        r#"'a' + "b" == 'ab' && r'\d' == '\\d' && '''a'b''' == "a'b" && '\u00e9'.size() == 1"#,
        "b'abc' == bytes('abc') && size(b'\\xff') == 1",
        "!(true && false) && (true || false) && !!true",
        "true ? (false ? false : true) : false",
        "null == null && null != 1 && 'a' != 1 && [1] != {'a': 1}",
        "[1, 2] == [1, 2] && [1, 2] != [2, 1] && [1, 2] + [3] == [1, 2, 3]",
        "{'a': 1, 'b': 2} == {'b': 2, 'a': 1} && {'a': 1}.a == 1 && {1: 'x'}[1] == 'x'",
        "1 in [1, 2] && !(3 in [1, 2]) && 'a' in {'a': 1} && !('b' in {'a': 1})",
        "'a' < 'b' && false < true && b'a' < b'b' && duration('1s') < duration('1m')",
        "// a comment\n true",
        // Errors that do not matter.
        "true || 1 / 0 == 1",
        "1 / 0 == 1 || true",
        "!(false && 1 / 0 == 1) && !(1 / 0 == 1 && false)",
        "[1, 0, 2].exists(x, 4 / x == 2) && ![0, 3].all(x, 6 / x > 9)",
        // Fields.
        "self.v.s == 'text' && self.v['n'] == 3 && self.v.m.a == 'b' && self.v.l[2] == 3",
        "has(self.v.s) && !has(self.v.z) && has(self.v.m.a) && !has(self.v.m.z)",
        "self.v.?s.orValue('x') == 'text' && self.v.?z.orValue('x') == 'x'",
        "!self.v.?z.?y.hasValue() && !self.v.?z.y.hasValue() && self.v.?m.a.value() == 'b'",
        "self.v.l[?1].value() == 2 && !self.v.l[?9].hasValue() && self.v.m[?'a'].hasValue()",
        "optional.of(1).optMap(x, x + 1).value() == 2 && !optional.none().optMap(x, x + 1).hasValue()",
        "optional.none().or(optional.of(2)).value() == 2 && !optional.ofNonZeroValue('').hasValue()",
        "optional.of(1).optFlatMap(x, optional.none()) == optional.none()",
        "[?optional.of(1), ?optional.none()] == [1] && {?'a': optional.none()} == {}",
        // Macros.
        "[1, 2, 3].all(x, x > 0) && [].all(x, false) && ![1, 2].all(x, x > 1)",
        "[1, 2].exists(x, x == 2) && ![].exists(x, true)",
        "[1, 2].exists_one(x, x == 2) && ![2, 2].exists_one(x, x == 2) && [1].existsOne(x, true)",
        "[1, 2, 3].filter(x, x % 2 == 1) == [1, 3] && [1, 2].map(x, x * x) == [1, 4]",
        "[1, 2, 3].map(x, x > 1, x * 2) == [4, 6] && self.v.m.all(k, k == 'a')",
        "self.v.l.all(x, self.v.l.exists(y, y == x)) && [[1], [2]].map(x, x.map(x, x + 1)) == [[2], [3]]",
        "[3, 4].all(i, x, x == i + 3) && {'a': 1}.all(k, v, k == 'a' && v == 1)",
        "[3, 4].transformList(i, x, i * x) == [0, 4] && {'a': 1}.transformList(k, v, k) == ['a']",
        "{'a': 1}.transformMap(k, v, v + 1) == {'a': 2}",
        "{'a': 'b'}.transformMapEntry(k, v, {v: k}) == {'b': 'a'}",
        "{'a': 1, 'b': 2}.transformMap(k, v, v > 1, v) == {'b': 2}",
        "[3, 1, 2].sortBy(x, -x) == [3, 2, 1]",
        // Types.
        "type(1) == int && type('a') == string && type(1) != type(1.0) && type(type(1)) == type",
        "int('12') == 12 && int(1.9) == 1 && int(2u) == 2 && uint('3') == 3u && double('1.5') == 1.5",
        "string(1) == '1' && string(true) == 'true' && string(1.5) == '1.5' && string(b'a') == 'a'",
        "bool('true') && !bool('f') && dyn(1) == 1 && size('äé') == 2 && size([1]) == 1",
        // Texts.
        "'hello'.contains('ell') && 'hello'.startsWith('he') && 'hello'.endsWith('lo')",
        "'hello'.matches('^h.*o$') && matches('abc', 'b') && !'abc'.matches('^b') && 'a'.matches('a' + '$')",
        "'a,b,c'.split(',') == ['a', 'b', 'c'] && 'a,b,c'.split(',', 2) == ['a', 'b,c']",
        "'abc'.split('') == ['a', 'b', 'c'] && 'abc'.split(',', 0) == [] && ''.split(',') == ['']",
        "'äbc'.substring(1) == 'bc' && 'abc'.substring(1, 2) == 'b' && 'äb'.charAt(0) == 'ä'",
        "'abcb'.indexOf('b') == 1 && 'abcb'.lastIndexOf('b') == 3 && 'abc'.indexOf('z') == -1",
        "'abcb'.indexOf('b', 2) == 3 && 'abcb'.lastIndexOf('b', 2) == 1",
        "' a '.trim() == 'a' && 'aB'.lowerAscii() == 'ab' && 'aB'.upperAscii() == 'AB'",
        "'aXbXc'.replace('X', '-') == 'a-b-c' && 'aXbXc'.replace('X', '-', 1) == 'a-bXc'",
        "['a', 'b'].join(',') == 'a,b' && ['a', 'b'].join() == 'ab' && 'abc'.reverse() == 'cba'",
        "'%s is %d, %.2f %% %x'.format(['a', 3, 1.5, 255]) == 'a is 3, 1.50 % ff'",
        "'%s %s'.format([[1, 'a'], null]) == '[1, a] null'",
        "'abc 123'.find('[0-9]+') == '123' && 'abc'.find('[0-9]+') == ''",
        "'1 22'.findAll('[0-9]+') == ['1', '22'] && '1 22'.findAll('[0-9]+', 1) == ['1']",
        // Lists.
        "[1, 2].isSorted() && ![2, 1].isSorted() && [1, 2].sum() == 3 && [].sum() == 0",
        "[1, 2].min() == 1 && [1, 2].max() == 2 && [1, 2, 1].lastIndexOf(1) == 2 && [5].indexOf(1) == -1",
        "[1, 1, 2].distinct() == [1, 2] && [[1], [2]].flatten() == [1, 2] && [1, 2, 3].slice(1, 2) == [2]",
        "[2, 1].sort() == [1, 2] && [1, 2].reverse() == [2, 1] && lists.range(3) == [0, 1, 2]",
        "sets.contains([1, 2], [2]) && sets.equivalent([1, 2], [2, 1, 1]) && sets.intersects([1], [1, 2])",
        // Times.
        "duration('90m').getHours() == 1 && duration('90m').getMinutes() == 90",
        "duration('1.5s').getSeconds() == 1 && duration('1.5s').getMilliseconds() == 1500",
        "duration('1h') + duration('1m') == duration('61m') && string(duration('90m')) == '5400s'",
        "timestamp('2024-03-01T01:02:03Z') - timestamp('2024-02-29T01:02:03Z') == duration('24h')",
        "timestamp('2024-02-29T23:30:00Z').getDate('+01:00') == 1",
        "timestamp('2024-02-29T01:02:03.5Z').getMonth() == 1 && timestamp(0).getFullYear() == 1970",
        "timestamp('2024-02-29T01:02:03.5Z').getDayOfWeek() == 4",
        "timestamp('2024-02-29T01:02:03.5Z').getDayOfYear() == 59",
        "timestamp('2024-02-29T01:02:03.5Z').getMilliseconds() == 500",
        "timestamp('2024-02-29T01:02:03Z').getHours() == 1 && timestamp(61).getMinutes() == 1",
        "string(timestamp('2024-02-29T01:02:03.5+01:00')) == '2024-02-29T00:02:03.5Z'",
        "timestamp('1970-01-01T00:00:01Z') == timestamp(1) && int(timestamp(5)) == 5",
        // Kubernetes.
        "isURL('https://a:80/b?c=d') && url('https://a:80/b?c=d').getHost() == 'a:80'",
        "url('https://a:80/b?c=d').getHostname() == 'a' && url('https://a:80/b').getPort() == '80'",
        "url('https://a/b').getScheme() == 'https' && url('https://a/b').getEscapedPath() == '/b'",
        "url('https://a/?c=d&c=e').getQuery() == {'c': ['d', 'e']} && !isURL('../a')",
        "isIP('1.2.3.4') && isIP('::1') && !isIP('::ffff:1.2.3.4') && !isIP('1.2.3') && !isIP('::1%e')",
        "ip('127.0.0.1').isLoopback() && ip('::1').family() == 6 && ip('0.0.0.0').isUnspecified()",
        "ip('224.0.0.1').isLinkLocalMulticast() && ip('169.254.1.1').isLinkLocalUnicast()",
        "ip('10.0.0.1').isGlobalUnicast() && !ip.isCanonical('::00') && ip.isCanonical('::')",
        "isCIDR('10.0.0.0/8') && !isCIDR('10.0.0.0') && cidr('10.0.0.0/8').containsIP('10.1.2.3')",
        "cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8')",
        "cidr('10.0.0.0/8').prefixLength() == 8 && cidr('10.0.0.0/8').ip() == ip('10.0.0.0')",
        "!cidr('10.0.0.0/8').containsIP(ip('11.0.0.1')) && cidr('::/0').containsIP('::1')",
        "isQuantity('1Gi') && quantity('1k') == quantity('1000') && quantity('1') < quantity('2')",
        "quantity('1').add(1).sub(quantity('500m')).asApproximateFloat() == 1.5",
        "quantity('2').asInteger() == 2 && !quantity('2m').isInteger() && quantity('-1').sign() == -1",
        "quantity('1').isLessThan(quantity('2')) && quantity('1').compareTo(quantity('1')) == 0",
        "semver('1.2.3').isGreaterThan(semver('1.2.3-rc.1')) && semver('1.2.3').minor() == 2",
        "isSemver('1.2.3') && !isSemver('1.2') && isSemver('v1.2', true)",
        "!format.dns1123Label().validate('a-b').hasValue() && format.dns1123Label().validate('A').hasValue()",
        "format.named('uuid').hasValue() && !format.named('none').hasValue()",
        "format.dns1123LabelPrefix().validate('a-') == optional.none()",
    ];
    let others = table.map(|rule| (rule, holds(rule)));
    let others: Vec<_> = others
        .iter()
        .filter(|(_, outcome)| *outcome != Ok(true))
        .collect();
    assert!(others.is_empty(), "{others:#?}");
}

#[test]
fn expressions_without_a_value_say_why() {
    let table = [
        ("self.v.z == 1", "no such key: z"),
        ("self.v.l[9] == 1", "index out of bounds: 9"),
        ("1 / 0 == 1", "division by zero"),
        ("1 % 0 == 1", "modulus by zero"),
        ("9223372036854775807 + 1 == 0", "integer overflow"),
        ("self.v.s > 1", "no such overload"),
        ("self.v.n", "the result is no boolean"),
        ("self.v.s && true", "no such overload"),
        ("[1].exists_one(x, 1 / 0 == x)", "division by zero"),
        (
            "optional.none().value() == 1",
            "optional.none() dereference",
        ),
        (
            "int('a') == 1",
            "type conversion error from 'string' to 'int'",
        ),
        (
            "duration('1d') == duration('24h')",
            "type conversion error from 'string' to 'google.protobuf.Duration'",
        ),
        ("'abc'.substring(2, 1) == ''", "invalid substring range"),
        ("[].min() == 1", "min or max called on empty list"),
    ];
    for (rule, error) in table {
        assert_eq!(holds(rule), Err(error.to_owned()), "{rule}");
    }
}

#[test]
fn what_is_no_expression_is_refused_at_once() {
    let table = [
        "",
        "1 +",
        "(1",
        "[1",
        "{1}",
        "a.",
        "x",
        "unknown(1)",
        "self.unknown(1)",
        "'a",
        "1 = 1",
        "has(self)",
        "[1].all(1, true)",
        "size()",
        "size(1, 2)",
        "'a'.matches('(')",
        "a ? b",
        "self.v[",
        "1 1",
        "@",
    ];
    for rule in table {
        assert!(Program::compile(rule, NAMES).is_err(), "{rule}");
    }
    let deep = [
        format!("{}1{} == 1", "(".repeat(5000), ")".repeat(5000)),
        format!("{}true", "!".repeat(5000)),
        format!("1{}", " + 1".repeat(5000)),
        format!("self{}", ".a".repeat(5000)),
        format!("{}1", "true ? 1 : ".repeat(5000)),
        format!("{}1{} == 1", "[1].map(x, ".repeat(200), ")".repeat(200)),
    ];
    for rule in deep {
        assert!(Program::compile(&rule, NAMES).is_err());
    }
}

#[test]
fn schemas_say_what_values_are() {
    let text = |format: &str| json!({"type": "string", "format": format});
    let table = [
        (
            "self.v.getFullYear() == 2024",
            text("date-time"),
            json!("2024-01-02T03:04:05Z"),
        ),
        ("self.v.getMonth() == 0", text("date"), json!("2024-01-02")),
        ("self.v > duration('1s')", text("duration"), json!("1m")),
        ("self.v == b'hi'", text("byte"), json!("aGk=")),
        (
            "self.v == 1.0 && type(self.v) == double",
            json!({"type": "number"}),
            json!(1),
        ),
        (
            "type(self.v) == int",
            json!({"x-kubernetes-int-or-string": true}),
            json!(1),
        ),
        (
            "self.v == ['b', 'a']",
            json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}),
            json!(["a", "b"]),
        ),
        (
            "self.v.__namespace__ == 'a' && self.v.a__dash__b == 1 && has(self.v.__if__)",
            json!({
                "type": "object",
                "properties": {
                    "namespace": {"type": "string"}, "a-b": {"type": "integer"}, "if": {"type": "string"},
                },
            }),
            json!({"namespace": "a", "a-b": 1, "if": ""}),
        ),
        (
            "self.v.__if__ == 'x' && self.v['if'] == 'y'",
            json!({"type": "object", "additionalProperties": {"type": "string"}}),
            json!({"__if__": "x", "if": "y"}),
        ),
    ];
    for (rule, schema, value) in table {
        assert_eq!(outcome(rule, &schema, &value), Ok(true), "{rule}");
    }
}

#[test]
fn rules_have_a_budget() {
    let many = json!((0..2000).collect::<Vec<_>>());
    let square = outcome(
        "self.v.all(x, self.v.exists(y, y == x + 1) || true)",
        &any(),
        &many,
    );
    assert_eq!(
        square,
        Err("call cost exceeds limit: the rule takes too long".to_owned())
    );
    // Neither can one that doubles what it has, or compares what is large.
    for rule in [
        "[1, 2, 3, 4, 5, 6, 7, 8, 9].map(a, self.v.map(b, self.v.filter(c, c == a))).size() > 0",
        "self.v.all(x, self.v == self.v)",
        "self.v.all(x, sets.contains(self.v, self.v))",
        "self.v.exists(x, 'a'.matches('b' + string(x)))",
        "lists.range(1000000000).size() > 0",
    ] {
        assert!(outcome(rule, &any(), &many).is_err(), "{rule}");
    }
}

#[test]
fn all_rules_of_an_object_have_one_together() {
    let rules: Vec<_> = (0..40)
        .map(|number| json!({"rule": format!("self.v.all(x, self.v.all(y, x + y > -{number}))")}))
        .collect();
    let schema = json!({
        "type": "object",
        "properties": {"v": {"type": "array", "items": {"type": "integer"}}},
        "x-kubernetes-validations": rules,
    });
    let schema = Schema::compile(&schema).expect("a schema");
    let object = json!({"v": (0..300).collect::<Vec<_>>()});
    let found = schema.validate(Value::from(&object), None, Write::Object);
    let faults: Vec<_> = found.into_iter().map(|one| one.fault).collect();
    assert_eq!(faults.last(), Some(&Fault::Budget));
}
