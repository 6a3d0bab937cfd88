//! Rule documents and aliases from files and from a real etcd.
