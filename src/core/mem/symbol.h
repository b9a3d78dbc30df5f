/*
 * What a code address is called, for reports that a person reads.
 */
#ifndef BOP_CORE_MEM_SYMBOL_H
#define BOP_CORE_MEM_SYMBOL_H

#include <elf.h>
#include <stdio.h>

#include <bop/base.h>

#define BOP__SYMBOL_MODULES_MAX 16

/* A file of code, mapped. */
struct bop__symbol_module {
    uintptr_t bias; /* Of its addresses in memory over those in the file. */
    const uint8_t *file;
    size_t file_size;
    const Elf64_Sym *symbols; /* NULL: it has none that can be read. */
    size_t symbol_count;
    const char *names;
    size_t names_size;
};

/* Modules that were asked for, so that each is read once. Zeroed means empty. */
struct bop__symbols {
    struct bop__symbol_module modules[BOP__SYMBOL_MODULES_MAX];
    size_t module_count;
};

/**
 * Write "function+0x1a (module)" or "0x1234 (module+0x34)" for a return address. Static functions
 * are known where the file was not stripped.
 */
void bop__symbol_write(struct bop__symbols *symbols, FILE *out, uintptr_t return_address);

void bop__symbols_deinit(struct bop__symbols *symbols);

#endif
