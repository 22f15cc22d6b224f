/* minprov as one static program: Python with all its modules frozen into it. */

#include <Python.h>
#include <marshal.h>
#include <sys/mman.h>

/* Written by freeze.py; import.h tells what the table is. */
extern const struct _frozen minprov_modules[];
extern const char minprov_bytecode[], minprov_bytecode_end[];

PyObject *__real_PyMarshal_ReadObjectFromString(const char *data, Py_ssize_t size);

/* The linker has every caller call this. After a module's bytecode was read its pages are given back, and those that the kernel
 * has mapped around them: they are the file's, and with them a first boot would have 5 MiB more in memory. */
PyObject *
__wrap_PyMarshal_ReadObjectFromString(const char *data, Py_ssize_t size)
{
    PyObject *code = __real_PyMarshal_ReadObjectFromString(data, size);
    if (minprov_bytecode <= data && data < minprov_bytecode_end) {
        madvise((void *)minprov_bytecode, minprov_bytecode_end - minprov_bytecode, MADV_DONTNEED);
    }
    return code;
}

static void
exit_if_failed(PyStatus status)
{
    if (PyStatus_Exception(status)) {
        Py_ExitStatusException(status);
    }
}

int
main(int argc, char **argv)
{
    /* As with -I -S: no environment, no site-packages, no directory that modules are looked for in. */
    PyPreConfig preconfig;
    PyPreConfig_InitIsolatedConfig(&preconfig);
    preconfig.utf8_mode = 1;
    exit_if_failed(Py_PreInitialize(&preconfig));

    PyImport_FrozenModules = minprov_modules;
    PyConfig config;
    PyConfig_InitIsolatedConfig(&config);
    config.install_signal_handlers = 1; /* SIGPIPE is an error of the write, SIGINT an exception */
    config.parse_argv = 0;
    config.site_import = 0;
    config.write_bytecode = 0;
    config.use_frozen_modules = 1;
    config.pathconfig_warnings = 0;
    config.module_search_paths_set = 1;
    exit_if_failed(PyConfig_SetString(&config, &config.home, L"/")); /* else it is looked for, around the program */
    exit_if_failed(PyConfig_SetBytesArgv(&config, argc, argv));
    exit_if_failed(Py_InitializeFromConfig(&config));
    PyConfig_Clear(&config);
    return PyRun_SimpleString("from minprov.__main__ import main\nmain()") ? 70 : 0; /* EX_SOFTWARE; main() exits */
}
