/* A boot sector that does what every kernel's start does, turns on paging and enters 64-bit mode, and ends QEMU from there.
 *
 * There are machines whose KVM runs the firmware, which is 16-bit code, and hangs here. long-mode.img is this, assembled:
 *   as long-mode.S -o long-mode.o && ld -Ttext=0x7c00 --oformat binary -o long-mode.img long-mode.o
 * Intel's Software Developer's Manual, volume 3A, 10.8.5, has the order of these steps.
 */
.code16
.globl _start
_start:
    cli
    xorw    %ax, %ax
    movw    %ax, %ds
    movw    %ax, %es
    movw    %ax, %ss
    movw    $0x7c00, %sp

    movw    $0x1000, %di            # three zeroed tables: the first 2 MiB at their own addresses
    xorl    %eax, %eax
    movw    $0xc00, %cx
    rep stosl
    movl    $0x2003, 0x1000
    movl    $0x3003, 0x2000
    movl    $0x0083, 0x3000
    movl    $0x1000, %eax
    movl    %eax, %cr3

    movl    %cr4, %eax
    orl     $0x20, %eax             # PAE
    movl    %eax, %cr4
    movl    $0xc0000080, %ecx       # EFER, its long mode bit
    rdmsr
    orl     $0x100, %eax
    wrmsr
    movl    %cr0, %eax
    orl     $0x80000001, %eax       # paging and protection at once
    movl    %eax, %cr0
    lgdt    table
    ljmp    $8, $start64

.code64
start64:
    movb    $0x10, %al              # isa-debug-exit makes it QEMU's exit status: 2 * 16 + 1
    outb    %al, $0xf4
1:  hlt
    jmp     1b

.balign 8
segments:
    .quad   0, 0x00af9a000000ffff
table:
    .word   15
    .long   segments
.org 510
.word 0xaa55
