//! The guard rails that the chart ships, on a real API server with real users: who may, who may not, by every way of writing, and the
//! sentence that whoever may not gets.

mod support;

mod policies {
    mod guard;
    mod letting_go;
    mod owners;
    mod people;
    mod scopes;
    mod secret_annotations;
    mod status;
    mod types;
    mod write;
}
