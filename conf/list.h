/* SPDX-License-Identifier: MIT */
/* list.h - intrusive doubly linked list; the head is a node of its own.
 * A node that is in no list points at itself, so removal is always safe. */
#ifndef CONF_LIST_H
#define CONF_LIST_H

#include <stdbool.h>
#include <stddef.h>

#ifndef container_of
#define container_of(ptr, type, member) \
	((type *)(void *)((char *)(ptr) - offsetof(type, member)))
#endif

struct list {
	struct list *next, *prev;
};

static inline void
list_init(struct list *l)
{
	l->next = l->prev = l;
}

static inline bool
list_empty(const struct list *l)
{
	return l->next == l;
}

static inline void
list_insert_after(struct list *at, struct list *node)
{
	node->prev = at;
	node->next = at->next;
	at->next->prev = node;
	at->next = node;
}

static inline void
list_push_front(struct list *head, struct list *node)
{
	list_insert_after(head, node);
}

static inline void
list_push_back(struct list *head, struct list *node)
{
	list_insert_after(head->prev, node);
}

static inline void
list_remove(struct list *node)
{
	node->prev->next = node->next;
	node->next->prev = node->prev;
	list_init(node);
}

/* Take the first node off; NULL when the list is empty. */
static inline struct list *
list_pop_front(struct list *head)
{
	struct list *n = head->next;

	if (n == head)
		return NULL;
	list_remove(n);
	return n;
}

/* Move all of @from to the end of @to; @from is empty afterwards.  Work that is
 * ready is moved aside like this before it runs. */
static inline void
list_splice_back(struct list *to, struct list *from)
{
	if (list_empty(from))
		return;
	from->next->prev = to->prev;
	to->prev->next = from->next;
	from->prev->next = to;
	to->prev = from->prev;
	list_init(from);
}

#define list_for_each(it, head) \
	for (struct list *it = (head)->next; it != (head); it = it->next)
#define list_for_each_safe(it, tmp, head)                               \
	for (struct list *it = (head)->next, *tmp = it->next;           \
	    it != (head); it = tmp, tmp = it->next)
#define list_entry(ptr, type, member) container_of(ptr, type, member)

#endif
