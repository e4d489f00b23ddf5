/* What this folder puts into relay._native. */
#ifndef RELAY_MODULE_H
#define RELAY_MODULE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Each adds the names of one file; 0, or -1 with an error. */
int relay_add_mould(PyObject *module);
int relay_add_outbox(PyObject *module);
int relay_add_outline(PyObject *module);
int relay_add_valve(PyObject *module);

/* A type of that file. */
int relay_add_type(PyObject *module, PyType_Spec *spec);

/* Names that are looked up on others, each made once: `count` of them. */
int relay_intern(PyObject **const *names, const char *const *words, size_t count);

#endif
