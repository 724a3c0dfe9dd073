//! docs/coverage.md is what the tables say.

#[test]
fn the_coverage_table_is_that_of_the_contract() {
    let readme = include_str!("../../docs/coverage.md");
    let inner = readme
        .split_once("<!-- coverage -->\n")
        .and_then(|(_, rest)| rest.split_once("<!-- /coverage -->"))
        .expect("the markers")
        .0;
    let table = drawbridge::contract::with_built_in(&[]).unwrap().coverage();
    assert_eq!(
        inner.trim(),
        table.trim(),
        "paste what `drawbridge coverage` prints"
    );
}
