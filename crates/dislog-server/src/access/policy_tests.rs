use super::*;
use Action::{Admin, Consume, Produce};

/// As the book has them.
const BOOK_MODEL: &str = "
# Request definition
[request_definition]
r = sub, obj, act

# Policy definition
[policy_definition]
p = sub, obj, act

# Policy effect
[policy_effect]
e = some(where (p.eft == allow))

# Matchers
[matchers]
m = r.sub == p.sub && r.obj == p.obj && r.act == p.act
";
const BOOK_POLICY: &str = "p, root, *, produce\np, root, *, consume\n";

fn default(policy: &str) -> Policy {
    Policy::parse(None, policy).unwrap()
}

#[test]
fn the_files_of_the_book_work_as_they_are() {
    for model in [Some(BOOK_MODEL), None] {
        let policy = Policy::parse(model, BOOK_POLICY).unwrap();
        for topic in ["default", "orders.eu"] {
            assert!(policy.allows("root", Produce, topic) && policy.allows("root", Consume, topic));
            assert!(!policy.allows("root", Admin, topic));
            assert!(!policy.allows("nobody", Produce, topic));
        }
    }
    let policy = Policy::parse(Some(BOOK_MODEL), "p, root, orders, produce").unwrap();
    assert!(policy.allows("root", Produce, "orders") && !policy.allows("root", Produce, "default"));
    let rules = Policy::parse(Some(BOOK_MODEL), BOOK_POLICY).unwrap();
    let explained = rules.explain("root", Consume, "t");
    assert_eq!(explained.rules, ["policy.csv:2: p, root, *, consume"]);
}

#[test]
fn topics_have_patterns_subjects_roles_and_deny_wins() {
    let policy = default(
        "# who may what\n\
         p, role:shop, orders.*, produce\n\
         p, role:shop, orders.*, consume\n\
         p, role:shop, orders.secret, consume, deny\n\
         p, ops, *, *\n\
         p, *, public, consume\n\
         p, anonymous, open, consume\n\
         \n\
         g, alice, role:shop\n\
         g, \"bob\", role:shop\n",
    );
    for subject in ["alice", "bob", "role:shop"] {
        assert!(policy.allows(subject, Produce, "orders.eu"), "{subject}");
        assert!(!policy.allows(subject, Consume, "orders.secret"));
        assert!(policy.allows(subject, Produce, "orders.secret"));
        assert!(!policy.allows(subject, Produce, "order"));
        assert!(!policy.allows(subject, Admin, "orders.eu"));
    }
    assert!(policy.allows("ops", Admin, "@cluster") && policy.allows("ops", Consume, "any"));
    assert!(policy.allows("carol", Consume, "public") && !policy.allows("carol", Consume, "open"));
    assert!(!policy.allows(ANONYMOUS, Consume, "public"));
    assert!(policy.allows(ANONYMOUS, Consume, "open"));
}

#[test]
fn a_decision_is_explained_by_the_rules_that_apply() {
    let policy = default("p, a, t*, consume\n\np, a, *, *\np, a, tx, consume, deny\n");
    let Explained { allowed, rules } = policy.explain("a", Consume, "tx");
    assert!(!allowed);
    let expected = [
        "policy.csv:4: p, a, tx, consume, deny",
        "policy.csv:1: p, a, t*, consume, allow",
        "policy.csv:3: p, a, *, *, allow",
    ];
    assert_eq!(rules, expected);
    assert_eq!(policy.explain("b", Consume, "t").rules, [""; 0]);
}

#[test]
fn no_rules_allow_nothing() {
    let policy = default("");
    for subject in ["", "*", "anonymous", "root"] {
        assert!(!policy.allows(subject, Produce, ""), "{subject:?}");
        assert!(!policy.allows(subject, Admin, "@cluster"), "{subject:?}");
    }
}

#[test]
fn a_mistake_is_refused_with_its_line() {
    for (policy, expected) in [
        ("p, a, t", "line 1"),
        ("p, a, t, produce\np, a, t, publish", "line 2: \"publish\" is no act"),
        ("p, a, t, produce, maybe", "\"maybe\" is no eft"),
        ("p, a, , produce", "a rule is"),
        ("q, a, t, produce", "a line begins with"),
        ("g, alice", "a role is given with 2 fields"),
        ("g, anonymous, admins", "nobody in particular"),
        ("p, a\", t, produce", "has a quote"),
        ("p a t produce", "a line begins with"),
    ] {
        let error = Policy::parse(None, policy).err().unwrap();
        assert!(error.contains(expected), "{policy:?}: {error}");
    }
    let model = |from: &str, to: &str| BOOK_MODEL.replace(from, to);
    for model in [
        model("some(where (p.eft == allow))", "sometimes"),
        model("r = sub, obj, act", "r = sub, act"),
        model("m = r.sub", "m = unknown(r.sub)"),
        model("m = r.sub ==", "m = r.sub = ="),
        model("[matchers]", "[machters]"),
        String::new(),
        "no model at all".to_owned(),
    ] {
        assert!(Policy::parse(Some(&model), BOOK_POLICY).is_err(), "{model}");
    }
}

#[test]
fn patterns_match_whole_names() {
    for (name, pattern, expected) in [
        ("orders", "orders", true),
        ("orders2", "orders", false),
        ("orders.eu", "orders.*", true),
        ("orders", "orders.*", false),
        ("a.b.c", "a.*.c", true),
        ("a.c", "a.*.c", false),
        ("abcbc", "a*bc", true),
        ("ab", "ab*b", false),
        ("", "*", true),
        ("x", "**", true),
        ("x", "", false),
        ("aXbXc", "*X*X*", true),
        ("aXb", "*X*X*", false),
    ] {
        assert_eq!(is_match(name, pattern), expected, "{name:?} {pattern:?}");
    }
}

/// Every word of a question, and of the rules that it is held against.
const WORDS: [&str; 8] = ["a", "b", "*", "anonymous", "role:x", "role:y", "role:z", "ab"];

/// Rules by chance; the same for the same seed.
fn rules_by_chance(seed: u64) -> String {
    let mut state = seed;
    let mut chance = |count: usize| {
        // Knuth's constants; the low bits repeat soon, so the high ones are taken.
        state = state.wrapping_mul(6_364_136_223_846_793_005);
        state = state.wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % count
    };
    let mut rules = String::new();
    for _ in 0..chance(12) {
        let subject = WORDS[chance(WORDS.len())];
        if chance(3) == 0 && subject != ANONYMOUS {
            rules += &format!("g, {subject}, {}\n", WORDS[4 + chance(3)]);
            continue;
        }
        let pattern = ["*", "a*", "*b", "ab", "a*b"][chance(5)];
        let action = ["produce", "consume", "*"][chance(3)];
        let effect = ["allow", "allow", "deny"][chance(3)];
        rules += &format!("p, {subject}, {pattern}, {action}, {effect}\n");
    }
    rules
}

#[test]
fn rules_that_are_not_shown_to_casbin_make_no_difference() {
    let (mut allowed, mut denied) = (0, 0);
    for seed in 0..60 {
        let rules = rules_by_chance(seed);
        let selected = default(&rules);
        let whole = Policy::parse(Some(DEFAULT_MODEL), &rules).unwrap();
        assert!(whole.asks_all_rules() && !selected.asks_all_rules());
        for subject in WORDS {
            for (action, object) in [(Produce, "ab"), (Consume, "a"), (Admin, "b"), (Produce, "")] {
                let expected = whole.explain(subject, action, object);
                let found = selected.explain(subject, action, object);
                assert_eq!(found, expected, "{rules}{subject} {action:?} {object}");
                if found.allowed { allowed += 1 } else { denied += 1 }
            }
        }
    }
    assert!(allowed > 200 && denied > 200, "{allowed} {denied}");
}
