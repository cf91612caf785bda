//! The conformance checklist of `docs/spec/zql.md` §17.1 to §17.3, entry by entry.

use crate::model::build::*;
use crate::model::sheet::entry;
use kelvin::zql::ast::{Ast, Literal};

fn issue() -> Ast {
    from("issue")
}

fn text(value: &str) -> Literal {
    Literal::String(value.to_owned())
}

const NUMBER: fn(f64) -> Literal = Literal::Number;

#[test]
fn selection_order_limit() {
    entry("1", issue(), "a b c d", &[]);
    entry("2", issue().filter(and([])), "a b c d", &[]);
    entry("3", issue().filter(or([])), "", &[("+issue e open 1 -", "")]);
    entry("4, 15", issue().limit(2), "a b", &[("+issue 0 open - -", "+0 -b")]);
    entry("16, 17", issue().limit(2), "a b", &[("+issue e open - -", ""), ("-issue d", "")]);
    let by_p = || issue().order("p").limit(2);
    entry("5, 8", by_p(), "a b", &[("-issue b", "-b +c")]);
    entry("9", by_p(), "a b", &[("+issue e open - -", "+e -a")]);
    entry("10", by_p(), "a b", &[("issue a p=5", "-a +c")]);
    entry("11", by_p(), "a b", &[("issue a p=1.5", "+a")]);
    entry("12", by_p(), "a b", &[("issue b p=1", "+b")]);
    entry("6, 7", issue().order("p desc").limit(3), "c d a", &[("issue b p=9", "+b -a")]);
    entry("13", issue().limit(0), "", &[("+issue e open - -", "")]);
    entry("14", issue().limit(10), "a b c d", &[("+issue e open - -", "+e")]);
    entry("26", issue().order("status").order("p desc").limit(1), "c", &[]);
    entry("27", issue().order("id desc").limit(1), "d", &[("-issue d", "-d +c")]);
    entry("28", from("issueLabel").limit(1), "a/l1", &[("+issueLabel 0 l9", "+0/l9 -a/l1")]);
}

#[test]
fn strings_are_ordered_by_their_bytes() {
    let names = ["Z", "a", "é", "～", "😀"];
    for limit in 1..=5 {
        let users: Vec<String> =
            names.iter().enumerate().rev().map(|(i, name)| format!("+user n{i} {name} -")).collect();
        let script = format!("-user u1; -user u2; {}", users.join(";"));
        let told: String = (0..limit).map(|i| format!("+n{i} ")).collect();
        let gone = if limit == 1 { "-u1" } else { "-u1 -u2" };
        entry(
            "29",
            from("user").order("name").limit(limit),
            if limit == 1 { "u1" } else { "u1 u2" },
            &[(&script, &format!("{told}{gone}"))],
        );
    }
}

#[test]
fn cursors() {
    let cursor = |exclusive| issue().order("p").start(&[("id", text("c")), ("p", NUMBER(2.0))], exclusive);
    entry("18, 24", cursor(true), "d", &[("issue c p=3", "+c")]);
    entry("19", cursor(false), "c d", &[]);
    entry("20", issue().order("p").start(&[("p", NUMBER(2.0))], true), "c d", &[]);
    let null = [("id", text("b")), ("p", Literal::Null)];
    entry("21", issue().order("p").start(&null, true), "a c d", &[]);
    let a = [("id", text("a")), ("p", NUMBER(1.0))];
    entry("22", issue().order("p desc").start(&a, true), "b", &[]);
    let nobody = [("id", text("zz")), ("p", NUMBER(1.5))];
    entry("23", issue().order("p").start(&nobody, true), "c d", &[]);
    entry("25", cursor(true).limit(1), "d", &[("-issue d", "-d"), ("+issue e open 7 -", "+e")]);
}

#[test]
fn conditions() {
    let with = |column: &str, op: &str, value: Constant| issue().filter(test(column, op, value));
    entry("30", with("owner", "=", NULL), "", &[]);
    entry("30", with("owner", "!=", NULL), "", &[]);
    entry("31", with("owner", "IS", NULL), "b", &[("issue a owner=-", "+a")]);
    entry("32", with("owner", "IS NOT", "u1".into()), "b d", &[]);
    entry("33", with("owner", "!=", "u1".into()), "d", &[]);
    entry("34", with("p", "<=", 1.0.into()), "a", &[]);
    entry("35", with("p", "IN", [1.0, 2.0].as_slice().into()), "a c d", &[]);
    entry("36", with("p", "NOT IN", [1.0].as_slice().into()), "c d", &[]);
    entry("37", with("p", "IN", [].as_slice().into()), "", &[]);
    entry("37", with("p", "NOT IN", [].as_slice().into()), "a c d", &[("issue b p=3", "+b")]);
    entry("38", with("status", "LIKE", "op%".into()), "a b d", &[]);
    entry("38", with("status", "LIKE", "OP%".into()), "", &[]);
    entry("38", with("status", "ILIKE", "OP%".into()), "a b d", &[("issue c status=OPen", "+c")]);
    entry("43", with("owner", "NOT LIKE", "u%".into()), "", &[]);
    entry("44", issue().filter(constant(1.0, "=", 1.0)), "a b c d", &[]);
    entry("44", issue().filter(constant("a", "=", "b")), "", &[("+issue e open 1 -", "")]);
    entry("46", with("p", "=", 1.0.into()), "a", &[("issue a p=2", "-a")]);
    entry("47", with("p", "=", 1.0.into()), "a", &[("issue d p=1", "+d")]);
    entry("48, 49", with("p", "=", 1.0.into()), "a", &[("issue a status=x", "+a"), ("issue d status=x", "")]);
    let either = || issue().filter(or([test("p", "=", 1.0), test("status", "=", "closed")]));
    entry("50", either(), "a c", &[("issue a p=9 status=closed", "+a")]);
    let both = issue().filter(or([test("p", "=", 1.0), test("p", "=", 2.0)]));
    entry("51", both, "a c d", &[("issue a p=2", "+a")]);
    entry("54", issue(), "a b c d", &[("issue a p=1", "")]);
    let texts = |op: &str, pattern: &str| from("comment").filter(test("txt", op, pattern));
    entry("39", texts("LIKE", "a\\%b"), "", &[("comment k0 txt=a%b", "+k0"), ("comment k1 txt=axb", "")]);
    entry("39", texts("LIKE", "a\\_b"), "", &[("comment k0 txt=a%b", "")]);
    entry("40", texts("LIKE", "x%y"), "", &[("comment k0 txt=x\\ny", "+k0")]);
    entry("40", texts("LIKE", "x_y"), "", &[("comment k0 txt=x\\ny", "+k0")]);
    entry("41", texts("ILIKE", "müller"), "", &[("comment k0 txt=MÜLLER", "+k0")]);
    entry("42", texts("ILIKE", "strasse"), "", &[("comment k0 txt=straße", "")]);
    let flagged = from("thing").filter(test("flag", "=", true));
    entry("45", flagged, "", &[("thing t1 flag=true", "+t1"), ("thing t1 flag=false", "-t1")]);
    entry("52", from("thing"), "t1 t2", &[("thing t1 data={\"a\":2}", "+t1")]);
}

#[test]
fn related_rows() {
    let owned = || issue().related("owner=id", from("user"));
    entry(
        "55 to 57",
        owned(),
        "a b c d u1 u2",
        &[("issue a owner=u2", "+a"), ("issue c owner=u2", "+c -u1")],
    );
    entry("58", owned(), "a b c d u1 u2", &[("issue d owner=-", "+d -u2")]);
    entry("59, 60", owned(), "a b c d u1 u2", &[("user u1 name=X", "+u1"), ("-user u2", "-u2")]);
    entry("61, 62", owned(), "a b c d u1 u2", &[("+user u3 C -", ""), ("issue b owner=u3", "+b +u3")]);
    entry("63", owned(), "a b c d u1 u2", &[("issue b p=4", "+b")]);
    let latest = || issue().related("id=issueID", from("comment").order("id desc").limit(2));
    entry(
        "64 to 66",
        latest(),
        "a b c d k4 k3 z1",
        &[("+comment k9 a u1 hi", "+k9 -k3"), ("-comment k9", "-k9 +k3")],
    );
    entry("67", latest(), "a b c d k4 k3 z1", &[("comment k4 issueID=b", "+k4 +k2")]);
    entry("68", latest(), "a b c d k4 k3 z1", &[("-issue a", "-a -k4 -k3")]);
    entry("69", issue().related("id=issueID", from("comment").limit(0)), "a b c d", &[("-comment k0", "")]);
    let none = from("comment").filter(test("txt", "=", "q"));
    entry("70", issue().related("id=issueID", none), "a b c d", &[("comment k0 txt=q", "+k0")]);
    let after_k1 = from("comment").order("id").start(&[("id", text("k1"))], true);
    entry("71", issue().related("id=issueID", after_k1), "a b c d k2 k3 k4 z1", &[]);
    let first = issue().limit(1).related("id=issueID", from("comment"));
    entry("72", first, "a k0 k1 k2 k3 k4", &[("-issue a", "-a -k0 -k1 -k2 -k3 -k4 +b")]);
    let authors = from("comment").limit(2).related("author=id", from("user"));
    entry(
        "73",
        issue().related("id=issueID", authors),
        "a b c d k0 k1 z1 u1 u2",
        &[("user u1 team=t9", "+u1")],
    );
    let two = issue().limit(2).related("id=issueID", from("comment"));
    entry("74", two, "a b k0 k1 k2 k3 k4", &[("+comment z2 d u1 hi", "")]);
    let labels = from("issueLabel").related("labelID=id", from("label"));
    let labelled = || issue().related("id=issueID", labels.clone());
    entry("75, 76", labelled(), "a b c d a/l1 c/l2 l1 l2", &[("-issueLabel a l1", "-a/l1 -l1")]);
    entry("77", labelled(), "a b c d a/l1 c/l2 l1 l2", &[("+issueLabel b l1", "+b/l1")]);
    let same_owner = || issue().filter(test("status", "=", "closed")).related("owner=owner", issue());
    entry(
        "78",
        same_owner(),
        "c a",
        &[("issue d owner=u1", "+d"), ("-issue a", "-a"), ("issue c owner=u2", "+c -d")],
    );
    let twice = issue().related("id=issueID", from("comment").alias("x"));
    entry("79", twice.related("owner=id", from("user").alias("x")), "a b c d u1 u2", &[]);
    entry(
        "80",
        issue().related("id=issueID,owner=author", from("comment")),
        "a b c d k0 k1 k2 k3 k4",
        &[("issue b owner=u2; comment z1 issueID=b", "+b +z1"), ("issue b owner=-", "+b -z1")],
    );
}
