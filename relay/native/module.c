/* relay._native: what the relay does in C where it could be built. Everything in it has a twin in Python, or is not needed. */
#include "module.h"

#ifdef __GLIBC__
#include <malloc.h>

#define LARGE (1024 * 1024) /* bytes of a block that is not kept: more than most bodies have */
#define KEPT (16 * LARGE)   /* bytes at the end of a heap that are: enough for some of those at once */
#endif

int
relay_add_type(PyObject *module, PyType_Spec *spec)
{
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    int failed;

    if (type == NULL)
        return -1;
    failed = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return failed;
}

int
relay_intern(PyObject **const *names, const char *const *words, size_t count)
{
    for (; count; count--, names++, words++)
        if (**names == NULL && (**names = PyUnicode_InternFromString(*words)) == NULL)
            return -1;
    return 0;
}

static PyObject *
trim(PyObject *module, PyObject *nothing)
{
#ifdef __GLIBC__
    int given;

    Py_BEGIN_ALLOW_THREADS
    given = malloc_trim(0);
    Py_END_ALLOW_THREADS
    return PyBool_FromLong(given);
#else
    Py_RETURN_FALSE;
#endif
}

/* One heap for the event loop, which has the first one, and one for all others: those would each keep what is free in
 * theirs. Not one for everybody, who would wait for each other. */
static PyObject *
share(PyObject *module, PyObject *nothing)
{
#ifdef __GLIBC__
    return PyBool_FromLong(mallopt(M_ARENA_MAX, 2));
#else
    Py_RETURN_FALSE;
#endif
}

/* Left to itself, it takes large blocks from the system and gives them back each time, or, once it has learned of them, what
 * they leave at its end: pages that have to be made anew for the next call. */
static PyObject *
keep(PyObject *module, PyObject *nothing)
{
#ifdef __GLIBC__
    return PyBool_FromLong(mallopt(M_MMAP_THRESHOLD, LARGE) && mallopt(M_TRIM_THRESHOLD, KEPT));
#else
    Py_RETURN_FALSE;
#endif
}

static PyMethodDef functions[] = {
    {"keep", keep, METH_NOARGS, "See relay.heap.keep."},
    {"share", share, METH_NOARGS, "See relay.heap.share."},
    {"trim", trim, METH_NOARGS, "See relay.heap.trim."},
    {NULL, NULL, 0, NULL},
};

static int
fill(PyObject *module)
{
    int (*const parts[])(PyObject *) = {relay_add_mould, relay_add_outbox, relay_add_outline, relay_add_valve};
    size_t place;

    for (place = 0; place < sizeof parts / sizeof *parts; place++)
        if (parts[place](module) < 0)
            return -1;
    return 0;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, fill}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "relay._native", "What the relay does in C.", 0, functions, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC
PyInit__native(void)
{
    return PyModuleDef_Init(&definition);
}
