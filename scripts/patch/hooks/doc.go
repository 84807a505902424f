// Package hooks reads, checks and applies the patch on upstream: a set of
// insertions (hooks), and files that join upstream's package server (glue).
//
// A hook names one declaration in one upstream file, one statement in it by
// what the statement is, and the lines to insert before or after it:
//
//	hook listeners-start
//	  why    One or more lines of prose; continuation lines are indented deeper
//	         than the key.
//	  test   TestListenerAcceptsClients
//	  file   server/server.go
//	  func   (*Server).Start
//	  before if !opts.DontListen
//	  insert s.startListeners()
//
// Keys, in any order:
//
//	why, test, file      why it is there, the tests that die without it, where
//	func NAME            the enclosing function: NAME, (*T).NAME or (T).NAME
//	type NAME            or the enclosing struct type
//	before ANCHOR        insert above the anchor and the comments right above it
//	after ANCHOR         insert below it
//	where ANCHOR         look only inside the one statement that this names
//	insert CODE          the code; more lines are indented deeper
//	import "path"        an import that the code needs; may be repeated
//	since, until VERSION only for upstream versions from / below this one
//	cold-path yes        needed, with where, to enter the parser's branch for
//	                     clients that are not authenticated
//
// Anchors:
//
//	define NAME    the statement (:=, var, const) that defines NAME
//	assign EXPR    the assignment (=, +=, ...) that has EXPR on its left
//	call EXPR      the statement (plain, go, defer) that calls EXPR
//	if EXPR        the if on that condition; an else-if is no statement of its own
//	for EXPR       the loop on that condition; for alone is the endless loop
//	range EXPR     the loop over EXPR
//	return EXPR    the return of that; return alone is the only return there is
//	case EXPR      the clause with EXPR in its list; inserts another clause
//	field NAME     the struct field; an embedded one goes by its type's name
//	element NAME   the element of a composite literal with that key
//	start, end     the first or last position in the body of the declaration, or
//	               of the if or loop that where names; before and after are alike
//
// Exactly one statement must match, function literals included. Everything else
// is an error that says what was looked for and what to do: a patch that fails
// because its premise is gone is doing its work.
//
// Inserted code is calls, assignments and definitions by one call, struct
// fields, elements that are calls or names, case clauses of those, and the guards
// `if CALL { return }` and `if err := CALL; err != nil { return err }` (or
// continue, or goto). A decision belongs in glue.
package hooks
