/* The part of CPython's stable ABI (3.9) that upstream's API file uses: creating one empty module.
 *
 * Binding against these declarations instead of an installed Python's headers means that no python3-dev is needed
 * and that the library's bytes do not depend on which Python ran the build. Layouts and values are fixed by the
 * stable ABI: https://docs.python.org/3/c-api/stable.html and https://docs.python.org/3/c-api/module.html
 */
#ifndef HOPPERFORGE_PYTHON_H
#define HOPPERFORGE_PYTHON_H

#include <stddef.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef ssize_t Py_ssize_t;
/* The tag is CPython's own: torch's headers declare `struct _object` themselves. */
typedef struct _object {
  Py_ssize_t ob_refcnt;
  struct _typeobject* ob_type;
} PyObject;

typedef struct {
  PyObject ob_base;
  PyObject* (*m_init)(void);
  Py_ssize_t m_index;
  PyObject* m_copy;
} PyModuleDef_Base;

typedef struct PyModuleDef {
  PyModuleDef_Base m_base;
  const char* m_name;
  const char* m_doc;
  Py_ssize_t m_size;
  struct PyMethodDef* m_methods;
  struct PyModuleDef_Slot* m_slots;
  int (*m_traverse)(PyObject*, int (*)(PyObject*, void*), void*);
  int (*m_clear)(PyObject*);
  void (*m_free)(void*);
} PyModuleDef;

#define PyModuleDef_HEAD_INIT {{1, NULL}, NULL, 0, NULL}

__attribute__((visibility("default"))) PyObject* PyInit__C(void);
PyObject* PyModule_Create2(PyModuleDef* definition, int abi_version);

/* 3 is PYTHON_ABI_VERSION: what modules built for the limited API pass. */
#define PyModule_Create(definition) PyModule_Create2(definition, 3)

#ifdef __cplusplus
}
#endif

#endif
