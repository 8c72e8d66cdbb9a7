//! probe
#[test]
fn probe() {
    let t = std::time::Instant::now();
    println!("{:?} {:?}", tests::hookswitch(), t.elapsed());
}
