//! The embedding example does what it says.

#[path = "../examples/embed.rs"]
#[allow(dead_code, reason = "its `main` is the example's")]
mod embed;

#[tokio::test]
async fn the_example_runs() {
    let folder = tempfile::tempdir().unwrap();
    embed::run(folder.path()).await.unwrap();
}
