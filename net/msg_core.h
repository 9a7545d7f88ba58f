/* SPDX-License-Identifier: MIT */
/* msg_core.h - messages that more than one service uses. */
#ifndef NET_MSG_CORE_H
#define NET_MSG_CORE_H

#include "net/msg.h"

#define MSG_NONE(F) \
	F(u8, unused, "zero")

MSG_DECLARE(none, MSG_NONE)

#endif
