//! The conformance checklist of `docs/spec/zql.md` §17.4 and §17.5, entry by entry.

use crate::model::build::*;
use crate::model::sheet::entry;
use kelvin::zql::ast::{Ast, Condition};

fn issue() -> Ast {
    from("issue")
}

fn comments() -> Condition {
    exists("id=issueID", from("comment"))
}

fn no_comments() -> Condition {
    not_exists("id=issueID", from("comment"))
}

fn comments_with(condition: Condition) -> Condition {
    exists("id=issueID", from("comment").filter(condition))
}

#[test]
fn existence() {
    let q = || issue().filter(comments());
    entry(
        "82, 83",
        q(),
        "a c k0 k1 k2 z1",
        &[
            ("-comment k0", "-k0 +k3"),
            ("-comment k1", "-k1 +k4"),
            ("-comment k2; -comment k3", "-k2 -k3"),
            ("-comment k4", "-k4 -a"),
        ],
    );
    entry("84", q(), "a c k0 k1 k2 z1", &[("+comment z2 b u1 hi", "+b +z2")]);
    entry("85", q(), "a c k0 k1 k2 z1", &[("+comment j9 a u1 hi", "")]);
    entry("86", q(), "a c k0 k1 k2 z1", &[("comment z1 issueID=b", "+b +z1 -c")]);
    entry("87", q(), "a c k0 k1 k2 z1", &[("comment k0 txt=x", "+k0"), ("comment k4 txt=x", "")]);
    let none = || issue().filter(no_comments());
    entry("88 to 90", none(), "b d", &[("+comment z2 b u1 hi", "-b"), ("-comment z2", "+b")]);
    entry("91", issue().filter(exists("owner=id", from("user"))), "a c d u1 u2", &[("issue b owner=u9", "")]);
    entry("91", issue().filter(not_exists("owner=id", from("user"))), "b", &[("-user u2", "+d")]);
    let first = issue().filter(comments()).order("p").limit(1);
    entry("100", first, "a k0 k1 k2", &[("+comment z2 b u1 hi", "+b +z2 -a -k0 -k1 -k2")]);
    let one = issue().filter(exists("id=issueID", from("comment").limit(1)));
    entry("101", flip(one.clone(), true), "a c k0 k1 k2 z1", &[]);
    entry("101", one, "a c k0 k1 k2 z1", &[("-comment z1", "-c -z1")]);
    let zero = || from("comment").limit(0);
    entry("102", issue().filter(exists("id=issueID", zero())), "", &[]);
    entry("102", issue().filter(not_exists("id=issueID", zero())), "a b c d", &[("-comment z1", "")]);
    for hint in [true, false] {
        entry("103", flip(q(), hint), "a c k0 k1 k2 z1", &[("-comment z1", "-c -z1")]);
        entry("104", flip(none(), hint), "b d", &[("-comment z1", "+c")]);
    }
    let secret = issue().filter(exists("id=issueID", from("secret")));
    entry("110", secret, "a", &[("+secret s2 b", "+b"), ("-secret s1", "-a")]);
    entry("111", issue().filter(by_permissions(comments())), "a c", &[("-comment z1", "-c")]);
}

fn flip(mut ast: Ast, hint: bool) -> Ast {
    ast.condition = ast.condition.map(|c| flipped(c, hint));
    ast
}

#[test]
fn nested_existence() {
    let by_a = || comments_with(exists("author=id", from("user").filter(test("name", "=", "A"))));
    entry(
        "92, 93",
        issue().filter(by_a()),
        "a k0 k1 k2 u1",
        &[("user u1 name=X", "-a -k0 -k1 -k2 -u1"), ("user u1 name=A", "+a +k0 +k1 +k2 +u1")],
    );
    entry("94", issue().filter(by_a()), "a k0 k1 k2 u1", &[("user u2 name=A", "+c +z1 +u2")]);
    let labels =
        from("issueLabel").filter(exists("labelID=id", from("label").filter(test("name", "=", "bug"))));
    let q = || issue().filter(exists("id=issueID", labels.clone()));
    entry("108, 109", q(), "a a/l1 l1", &[("label l2 name=bug2", ""), ("label l1 name=x", "-a -a/l1 -l1")]);
}

#[test]
fn existence_in_conjunctions_and_disjunctions() {
    let both = and([comments_with(test("id", "!=", "k0")), comments_with(test("author", "=", "u1"))]);
    entry("95", issue().filter(both), "a k1 k2 k3 k0", &[("-comment k0", "-k0")]);
    let open_or = || issue().filter(or([test("status", "=", "open"), comments()]));
    entry("96, 97", open_or(), "a b c d k0 k1 k2 z1", &[("-comment z1", "-c -z1")]);
    entry("98", open_or(), "a b c d k0 k1 k2 z1", &[("issue c status=open", "+c"), ("-comment z1", "-z1")]);
    let silent = issue().filter(or([no_comments(), test("status", "=", "closed")]));
    entry("99", silent, "b c d z1", &[("+comment z2 d u1 hi", "-d")]);
    let owned = || exists("owner=id", from("user").filter(test("name", "=", "A")));
    let either = || issue().filter(or([flipped(comments(), true), flipped(owned(), true)]));
    entry(
        "105, 106",
        either(),
        "a c k0 k1 k2 z1 u1",
        &[
            ("-comment k0; -comment k1; -comment k2; -comment k3; -comment k4", "-k0 -k1 -k2"),
            ("user u1 name=X", "-a -u1"),
        ],
    );
    let parts = or([
        and([test("status", "=", "open"), flipped(comments(), true)]),
        and([test("status", "=", "closed"), flipped(owned(), true)]),
    ]);
    entry("107", issue().filter(parts), "a c k0 k1 k2 z1 u1", &[("issue a status=closed", "+a")]);
}

#[test]
fn scalar_subqueries_are_existence() {
    let u1 = || exists("owner=id", from("user").filter(test("id", "=", "u1")));
    entry("112, 120", issue().filter(u1()), "a c u1", &[("user u1 name=X", "+u1")]);
    let bug = || from("label").filter(test("name", "=", "bug"));
    let q = || from("issueLabel").filter(exists("labelID=id", bug()));
    entry("113, 114", q(), "a/l1 l1", &[("label l1 name=x; label l2 name=bug", "-a/l1 -l1 +c/l2 +l2")]);
    entry(
        "115, 116",
        q(),
        "a/l1 l1",
        &[("-label l1", "-a/l1 -l1"), ("+label l3 bug; +issueLabel b l3", "+b/l3 +l3")],
    );
    let nobody = not_exists("owner=id", from("user").filter(test("id", "=", "u9")));
    entry("117", issue().filter(nobody), "a b c d", &[("+user u9 Z -; issue d owner=u9", "-d")]);
    let not_u1 = not_exists("owner=id", from("user").filter(test("id", "=", "u1")));
    entry("118", issue().filter(not_u1), "b d", &[]);
    let team = exists("owner=id", from("user").filter(test("team", "IS", NULL)));
    entry("119", issue().filter(team), "d u2", &[("user u1 team=-", "+a +c +u1")]);
}

#[test]
fn whole_tables_change() {
    let q = || issue().filter(comments());
    entry("124", q(), "a c k0 k1 k2 z1", &[("truncate comment", "-a -c -k0 -k1 -k2 -z1")]);
    let again = "truncate comment; +comment z1 c u2 hi; +comment k0 a u1 new";
    // Nothing lists what changed in a truncated table, so every row of it is told again.
    entry("125", q(), "a c k0 k1 k2 z1", &[(again, "-k1 -k2 +k0 +z1")]);
    entry("127", q(), "a c k0 k1 k2 z1", &[("issue a id=a2", "-a -k0 -k1 -k2")]);
    entry("129", q(), "a c k0 k1 k2 z1", &[("+comment z2 b u1 hi; -comment z2", "")]);
    let swap = "-label l1; +label l9 bug; +label l1 wuz";
    entry("128", from("label"), "l1 l2", &[(swap, "+l9 +l1")]);
    entry("131", q(), "a c k0 k1 k2 z1", &[("issue a p=7; -issue a; +issue a open 3 u1", "+a")]);
}
