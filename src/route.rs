//! Host, path, method, header -> upstream.
