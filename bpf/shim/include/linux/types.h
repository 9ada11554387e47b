/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
#pragma once
/* The fixed widths of the UAPI and the kernel's short names for them. */
#include <asm-generic/int-ll64.h>
typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s8 s8;
typedef __s16 s16;
typedef __s32 s32;
typedef __s64 s64;
typedef __u16 __be16, __le16, __sum16;
typedef __u32 __be32, __le32, __wsum;
typedef __u64 __be64, __le64;
typedef __u64 __aligned_u64 __attribute__((aligned(8)));
typedef _Bool bool;
typedef unsigned long size_t, uintptr_t;
typedef long ssize_t;
typedef int pid_t;
#define NULL ((void *)0)
#define true 1
#define false 0
