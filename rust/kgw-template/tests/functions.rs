//! What each function, filter and way of writing makes: a table.

mod common;

use common::{FIELDS, Request};
use kgw_template::{Context, RenderError, Template};

fn rendered(text: &str, body: &str) -> Result<String, RenderError> {
    let context = Context::with_json(Request::shared(), body.to_owned()).expect("JSON");
    let template = Template::compile(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    template.render(&context).map(std::borrow::Cow::into_owned)
}

const BODY: &str = r#"{
    "model": "llama3", "stream": true, "n": 2, "f": 1.0, "none": null, "text": "a \"b\"\n",
    "tags": ["x", 1, true, null], "inner": {"k": "v", "l": [1]}, "header": "mine", "body": "own"
}"#;

#[test]
fn functions_and_values() {
    let table = [
        // Fields.
        (r#"{{ header("X-User") }}"#, "ann"),
        (r#"{{ header(":path") }}"#, "/a?b=c"),
        (r#"{{ header("x-many") }}"#, "1, 2"),
        (r#"{{ header("x-none") }}"#, ""),
        (r#"{{ request_header("X-User") }}"#, "ann of the request"),
        // Cookies.
        (r#"{{ get_cookie("a") }}"#, "1"),
        (r#"{{ get_cookie("A") }}"#, ""),
        (r#"{{ get_cookie_i("A") }}"#, "1"),
        (r#"{{ get_cookie("session") }}"#, "x=y"),
        (r#"{{ get_cookie("none") }}"#, ""),
        // The body.
        ("{{ body() | length > 10 }}", "true"),
        ("{{ context().model }}", "llama3"),
        (r#"{{ context()["header"] }}"#, "mine"),
        ("{{ model }}", "llama3"),
        ("{{ inner.k }}{{ inner.l[0] }}{{ inner.l.0 }}", "v11"),
        ("{{ missing }}", ""),
        // Names of functions are variables where no function is called, and functions where one is.
        ("{{ header }}", "mine"),
        (r#"{{ header("x-user") }}"#, "ann"),
        ("{% if body() %}{{ context().body }}{% endif %}", "own"),
        // Metadata.
        (r#"{{ dynamic_metadata("ns:user") }}"#, "bob"),
        (r#"{{ dynamic_metadata("ns:claims:sub") }}"#, "s"),
        (r#"{{ dynamic_metadata("ns:claims") }}"#, r#"{"sub": "s"}"#),
        (r#"{{ dynamic_metadata("ns:none:none") }}"#, ""),
        (r#"{{ dynamic_metadata("other:user") }}"#, ""),
        // The process.
        (r#"{{ env("PATH") }}"#, ""),
        (r#"{{ env("KGW_NO_SUCH_VARIABLE") }}"#, ""),
        // Texts.
        (r#"{{ substring("hello", 1) }}"#, "ello"),
        (r#"{{ substring("hello", 1, 3) }}"#, "ell"),
        (r#"{{ substring("hello", 1, 0) }}"#, ""),
        (r#"{{ substring("hello", 1, 99) }}"#, "ello"),
        (r#"{{ substring("hello", 5) }}"#, ""),
        (r#"{{ substring("hello", 99, 1) }}"#, ""),
        (
            r#"{{ substring("hello", 1, 18446744073709551615) }}"#,
            "ello",
        ),
        (r#"{{ substring("aäb", 1, 1) }}"#, ""),
        (r#"{{ substring("aäb", 0, 3) }}"#, "aä"),
        (r#"{{ substring("aäb", 2, 2) }}"#, "äb"),
        (r#"{{ base64_encode("a?>") }}"#, "YT8+"),
        (r#"{{ base64_encode("a") }}"#, "YQ=="),
        (r#"{{ base64_decode("YT8+") }}"#, "a?>"),
        (r#"{{ base64_decode("YQ==") }}"#, "a"),
        (r#"{{ base64_decode("YQ") }}"#, "a"),
        (r#"{{ base64_decode("%") }}"#, ""),
        (r#"{{ base64_decode("/w==") }}"#, ""),
        (r#"{{ base64url_encode("a?>") }}"#, "YT8-"),
        (r#"{{ base64url_decode("YT8-") }}"#, "a?>"),
        (r#"{{ base64url_decode("YT8+") }}"#, ""),
        (r#"{{ base64url_decode("eyJhIjoxfQ") }}"#, r#"{"a":1}"#),
        ("{{ raw_string(text) }}", r#"a \"b\"\n"#),
        (r#"{{ raw_string("ä") }}"#, "ä"),
        (r#"{{ replace_with_string("a-b-c", "-", "+") }}"#, "a+b+c"),
        (r#"{{ replace_with_string("a-b-c", "x", "+") }}"#, "a-b-c"),
        (r#"{{ trim("  a b ") }}"#, "a b"),
        (r#"{{ word_count(" a  b c ") }}"#, "3"),
        // How values are written.
        ("{{ stream }} {{ n }} {{ f }} {{ none }}", "true 2 1.0 none"),
        ("{{ tags }}", r#"["x", 1, true, null]"#),
        ("{{ inner }}", r#"{"k": "v", "l": [1]}"#),
        ("{{ [text] }}", r#"["a \"b\"\n"]"#),
        ("{{ text }}", "a \"b\"\n"),
        ("<{{ '<&>' }}>", "<<&>>"),
        ("{{ inner | tojson }}", r#"{"k": "v", "l": [1]}"#),
        // What templates can do.
        (
            "{% for tag in tags %}{{ loop.index }}:{{ tag }} {% endfor %}",
            "1:x 2:1 3:true 4:none ",
        ),
        ("{% if n == 2 %}two{% else %}not{% endif %}", "two"),
        (
            "{% macro twice(a) %}{{ a }}{{ header('x-user') }}{% endmacro %}{{ twice(n) }}",
            "2ann",
        ),
        (
            "{% for n in range(9) %}{% if n == 2 %}{% break %}{% endif %}{{ n }}{% endfor %}",
            "01",
        ),
        ("{% set a = 1 %}{{ a + n }}", "3"),
        (
            "{# nothing #}{{ model | upper | replace('L', 'l') }}",
            "llAMA3",
        ),
        ("{{ missing | default('other') }}", "other"),
        // One end of line is taken off the end.
        ("plain text\n", "plain text"),
        ("{{ model }}\r\n", "llama3"),
        ("", ""),
    ];
    for (text, expected) in table {
        assert_eq!(rendered(text, BODY).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn bodies_of_any_json_are_read() {
    for (body, text, expected) in [
        (r#"["a", {"b": 1}]"#, "{{ context()[1].b }}", "1"),
        (
            r#"["a"]"#,
            "{% for one in context() %}{{ one }}{% endfor %}",
            "a",
        ),
        (r#"["a"]"#, "{{ length }}", ""),
        (r#""text""#, "{{ context() }}", "text"),
        ("12", "{{ context() + 1 }}", "13"),
        ("false", "{{ context() }}", "false"),
        (
            r#"{"z": 1, "a": 2}"#,
            "{{ context() }}",
            r#"{"z": 1, "a": 2}"#,
        ),
        (r#"{"a": 1, "a": 2}"#, "{{ a }}", "2"),
        ("null", "{{ context() }}", ""),
        ("", "{{ context() }}", ""),
        ("{ }", "{{ model }}", ""),
    ] {
        assert_eq!(
            rendered(text, body).as_deref(),
            Ok(expected),
            "{text} of {body}"
        );
    }
    for body in ["{", "{}x", "\u{feff}{}", &"[".repeat(200)] {
        assert!(
            Context::with_json(Request::shared(), body.to_owned()).is_err(),
            "{body}"
        );
    }
}

#[test]
fn variables_need_a_body_that_has_some() {
    let template =
        Template::compile(r#"{{ model }}{{ header("x-user") }}{% set own = 1 %}{{ own }}"#);
    let template = template.expect("a template");
    assert_eq!(template.variables(), ["model"]);
    for body in ["", "null"] {
        let context = Context::with_json(Request::shared(), body).expect("JSON");
        assert_eq!(
            template.render(&context),
            Err(RenderError::UndeclaredVariables)
        );
    }
    let context = Context::with_text(Request::shared(), r#"{"model": "a"}"#);
    assert_eq!(
        template.render(&context),
        Err(RenderError::UndeclaredVariables)
    );
}

#[test]
fn it_is_known_whether_the_body_is_looked_at() {
    for (text, reads) in [
        ("plain body()", false),
        (r#"{{ header("a") }}"#, false),
        ("{{ body() }}", true),
        ("{% if false %}{{ context() }}{% endif %}", true),
        ("{% macro m() %}{{ body() }}{% endmacro %}", true),
        ("{{ body }}", false),
    ] {
        assert_eq!(
            Template::compile(text).expect("a template").reads_body(),
            reads,
            "{text}"
        );
    }
}

#[test]
fn what_cannot_be_rendered_is_refused_at_once() {
    for (text, expected) in [
        (
            "{{ a",
            "line 1: unexpected end of input, expected end of variable block",
        ),
        ("a\n{% if %}", "line 2: unexpected end of block"),
        ("{% include 'x' %}", "line 1: unknown statement include"),
        (
            "\n\n{{ headers('x') }}",
            "line 3: there is no function headers()",
        ),
        (
            "{{ upper('x') }}",
            "line 1: there is no function upper(), but a filter: write {{ value | upper }}",
        ),
        ("{{ 'x' | up }}", "line 1: there is no filter up"),
        ("{{ 1 is strange }}", "line 1: there is no test strange"),
        (
            "{% if false %}{{ nope() }}{% endif %}",
            "line 1: there is no function nope()",
        ),
    ] {
        let error = Template::compile(text).expect_err(text);
        assert_eq!(error.to_string(), expected);
    }
    for name in [
        "extraction",
        "data_source",
        "host_metadata",
        "cluster_metadata",
    ] {
        let error = Template::compile(&format!("{{{{ {name}('x') }}}}")).expect_err(name);
        assert!(
            error
                .message
                .starts_with(&format!("there is no function {name}(): ")),
            "{error}"
        );
    }
}

#[test]
fn failures_say_where_and_not_what() {
    for text in [
        r#"{{ substring(header("x-user"), -1) }}"#,
        "{{ substring('a') }}",
        "{{ none.x.y }}",
        "{{ model.upper() }}",
        "{{ model + 1 }}",
    ] {
        let error = rendered(text, BODY).expect_err(text).to_string();
        assert!(error.starts_with("line 1: "), "{error}");
        for value in FIELDS.iter().map(|(_, value)| *value).chain(["llama3"]) {
            assert!(!error.contains(value), "{error}");
        }
    }
}

#[test]
fn random_texts_differ_between_requests_and_calls() {
    let template =
        Template::compile(r#"{{ replace_with_random("a-a", "a") }}"#).expect("a template");
    let context = Context::new(Request::shared());
    let texts: Vec<_> = (0..3)
        .map(|_| template.render(&context).expect("text").into_owned())
        .collect();
    for text in &texts {
        let (first, second) = text.split_once('-').expect("two places");
        assert_eq!((first.len(), first), (22, second));
    }
    assert!(texts[0] != texts[1] && texts[1] != texts[2] && texts[0] != texts[2]);
}

#[test]
fn time_and_output_are_bounded() {
    let doubling = |to: u32| {
        format!(
            "{{% set s = namespace(t='aaaaaaaaaaaaaaaa') %}}\
             {{% for i in range({to}) %}}{{% set s.t = s.t ~ s.t %}}{{% endfor %}}{{{{ s.t | length }}}}"
        )
    };
    assert_eq!(rendered(&doubling(10), "").as_deref(), Ok("16384"));
    let inner =
        "{% for i in range(10000) %}{% for j in range(10000) %}{{ i * j }}{% endfor %}{% endfor %}";
    let nested = "{% set s = namespace(l=[]) %}\
                  {% for i in range(50000) %}{% set s.l = [s.l] %}{% endfor %}{{ s.l }}";
    let all = "{{ replace_with_string('a' * 100000, '', 'b' * 100000) }}";
    let shared = "{% set l = ['a' * 100000] * 100000 %}{{ l }}";
    // Each turn of the loop within itself puts the last one's list into so many others.
    let within = format!(
        "{{% for x in [1] recursive %}}{{% set y = [{}x{}] %}}{{{{ loop([y]) }}}}{{% endfor %}}",
        "[".repeat(40),
        "]".repeat(40)
    );
    assert!(rendered(&within, "").is_err());
    for text in [doubling(60).as_str(), inner, nested, all, shared] {
        let error = rendered(text, "").expect_err(text);
        let is_bound = match &error {
            RenderError::OutOfFuel => true,
            // So deep a list is not written.
            error => text == nested && error.to_string() == "line 1: this value cannot be written",
        };
        assert!(is_bound, "{text}: {error}");
    }
}
